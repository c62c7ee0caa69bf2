"""What the runs of `benchmarks.prepare` say, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.results_file import Goal, document

_COMPARED = 5_000_000

Runs = Sequence[Mapping[str, Any]]

_NOTES = """
Medians of runs in processes of their own, one after the other on an otherwise idle machine, start-up of Python and
Spark included. The pyspark.ml pipeline runs in a plain session.

Most of this package's time is one step: rows leave the columns of the scan, cross one shuffle to the file in which
they will stay, are sorted, and become Arrow columns again. The pyspark.ml pipeline does not shuffle: it leaves rows
where they lie, in their order, with duplicates. Half of the step is gone before the shuffle: scanning 5 million rows
and making rows of their columns, with nothing behind it, takes as long as DuckDB needs for everything, and nine tenths
of that is copying texts and numbers into rows (Java Flight Recorder). Behind the shuffle 44 % read and sort rows,
37 % are Spark's ArrowWriter, which makes columns of rows, the rest sends them to Python. Python's own part, ties and
Parquet, runs beside it and takes less than a tenth.

What was tried, at 5 million rows in one hour:

* What each Python task repeated is gone: pyspark's worker read the contents of Spark's zip files and jar before every
  task, each worker imported pandas for itself, cells of statistics were merged with a pandas groupby. And Spark starts
  from an archive of its classes. Kept: at 300,000 rows preparation takes half of what it took, here a sixth less.
* Staged rows, which nobody but the next two steps reads, are not compressed on a local disk, have no checksums and lie
  in row groups four times as large as those of the dataset: kept; 10 of 43 s, more than a third of them where staged
  rows are read. And a session ends without waiting for PySpark's server of accumulators: 0.8 s.
* One projection before the shuffle and none after it, where there were three and one: kept; 6 % less processor time.
* Arrow batches through the shuffle instead of rows, cut by file and by range of the hash so that a worker holds little:
  38 to 43 s for the step instead of 32 to 34, compressed or not. Not kept: the batches cross between the JVM and Python
  twice more, which costs more than sorting rows.
* No shuffle of Spark's at all: tasks write Arrow segments by file, others read and sort them. 25 s for the step instead
  of 27. Not kept: 15 s of it are the way from the scan through rows to Arrow, which no order of rows saves, and on a
  cluster all rows would travel through the shared store.
* Shuffled rows without compression, larger or smaller Arrow batches and batches of the Parquet reader, the collector
  `-XX:+UseParallelGC`, large pages: no difference.
* Letting the JVM compile the long code of a whole stage (`-XX:-DontCompileHugeMethods`): no faster than the operators
  one by one, since compiling it takes what it saves.
* The JVM's first compiler alone (`-XX:TieredStopAtLevel=1`): a quarter slower here, as fast at 1.5 million rows, a
  tenth to a quarter faster for tables of some hundred thousand, where optimizing takes a third of all processor time.
  Kept for input files of less than 64 MiB in local mode.
* Reading by four tasks for each core where Spark takes as many as there are cores, so that none is left alone with a
  long one: kept; 2.5 of 49 s.
* Fitting, whose time is that of numpy: freed memory is used again instead of having the kernel clear its pages, cells
  of histograms are counted by place instead of sorted or searched, exact sums are of short digits: kept; 30 % less
  processor time in those tasks. The profile's histogram is a second pass over the numbers; finer cells in the first one
  would spare most columns of it, but for hundreds of columns they would be too many to merge.
* In fitting, numbers that repeat (of a row group, by a sample of it) are counted before anything is made of them, and
  each is measured once for all its rows; sums are taken of 8,192 numbers at a time, whose digits stay in a core's
  cache; texts of a dictionary are not looked at one by one; staged row groups are eight times as large as those of the
  dataset instead of four: kept; 6.8 instead of 9.3 s for the step. Sixteen times as large: a tenth less processor time
  in fitting and encoding, for 50 MB more in every Python worker. Not kept.
* Java code is optimized when it has run ten times as often as Java waits for (`-XX:Tier4InvocationThreshold` and its
  kin): kept; the optimizing compiler takes 6 instead of 13 processor seconds, since it leaves code alone that plans and
  compiles queries. Forty times as often: 3 seconds, but code that handles rows is slow for longer. Not kept.
* Parquet read row by row (`spark.sql.parquet.enableVectorizedReader=false`): a third more processor time before the
  shuffle. Not kept.
* No reasons to reject rows, to see what they cost: the code of the whole stage is 4,420 bytes then instead of 11,620,
  so that Java compiles it, and rows are copied once instead of twice; no faster. A quarter of the time before the
  shuffle is Parquet's, which copies each text out of its dictionary.
* Python workers that start beside the driver's first queries: no difference here, where planning and Java's compilers
  keep both cores busy; at 300,000 rows 0.7 of 19 s. Kept for input files of less than 64 MiB in local mode.

Polars is three times as fast, DuckDB three and a half times. They keep columns as columns from scan to file on one
machine, and write unshuffled rows without accounting, rejected rows, raw test rows, exact order-free statistics,
profiles or checksums. They are the better tools where one machine holds the table and none of that is wanted; the
shuffle is what makes any part of a file a random sample, and the same rows the same dataset on every cluster.

Driver memory is that of its Python process (flat over rows) and, in local mode, of a JVM that is the executor too and
takes of its heap what it gets.
"""


def page(sections: Mapping[str, Any]) -> list[str]:
    """A table of medians, the steps of the last compared run of this package, and what to know before quoting."""
    runs: Runs = sections["runs"]
    head = ["rows", "contestant", "runs", "seconds", "times this package", "processor seconds", "peak MiB"]
    lines = [f"| {' | '.join([*head, 'Python', 'JVM'])} |", "|---:|---|" + "---:|" * 7]
    named = {(one["rows"], one["contestant"]) for one in runs}
    for rows, name in sorted(named, key=lambda key: (key[0], key[1] != "package", key)):
        found = [one for one in runs if (one["rows"], one["contestant"]) == (rows, name)]
        ours = [one for one in runs if (one["rows"], one["contestant"]) == (rows, "package")]
        seconds, theirs = (_median(some, "seconds") for some in (found, ours))
        numbers = [len(found), f"{seconds:.1f}", f"{seconds / theirs:.2f}" if theirs else ""]
        processor = _median(found, "cpu_seconds")
        numbers.append(f"{processor:.0f}" if processor else "–")
        numbers += [f"{_median(found, f'{kind}_mib'):,.0f}" for kind in ("total", "python", "jvm")]
        lines.append(f"| {rows:,} | {name} | {' | '.join(map(str, numbers))} |")
    compared = [one for one in runs if one.get("steps") and (one["rows"], "pyspark_ml") in named]
    for one in compared[-1:]:
        lines += ["", f"Where {one['seconds']:.0f} s of this package at {one['rows']:,} rows go:", ""]
        lines += [f"* {name}: {seconds:.1f} s" for name, seconds in one["steps"].items()]
    return document("Preparation", sections["machine"], _goals(runs), [*lines, *_NOTES.splitlines()])


def _goals(runs: Runs) -> list[Goal]:
    compared = [one for one in runs if one["rows"] == _COMPARED]
    ours, theirs = (
        _median([one for one in compared if one["contestant"] == name], "seconds") for name in ("package", "pyspark_ml")
    )
    times = theirs / ours if ours and theirs else None
    return [Goal(f"times as fast as the pyspark.ml pipeline, {_COMPARED:,} rows", times, 2)]


def _median(runs: Runs, key: str) -> float:
    found = [one[key] for one in runs if key in one]
    return float(statistics.median(found)) if found else 0.0
