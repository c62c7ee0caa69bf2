"""What the runs of `benchmarks.prepare` say, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Runs = Sequence[Mapping[str, Any]]

_NOTES = """
Medians of runs in processes of their own, one after the other on an otherwise idle machine, start-up of Python and
Spark included. The goal is half the time of the pyspark.ml pipeline at 5 million rows.

Most of this package's time is one step: rows leave the columns of the scan, cross one shuffle to the file in which
they will stay, are sorted, and become Arrow columns again. The pyspark.ml pipeline does not shuffle: it leaves rows
where they lie, in their order, with duplicates. Thread dumps of that step, ten a second at 2 million rows: of the tasks
before the shuffle half is Spark's projection of columns into rows and a third writes them; of those behind it 44 % read
and sort rows, 37 % are Spark's ArrowWriter, which makes columns of rows, the rest sends them to Python. Python's own
part, ties and Parquet, runs beside it and takes a tenth.

Moving Arrow batches through the shuffle instead of rows would save the writing, reading and sorting, about a third of
the step and a sixth of all: less than the goal needs, and a Python worker would have to hold all rows of a file, where
Spark's sort spills to disk. So rows it is.

DuckDB and Polars are five to six times as fast. They keep columns as columns from scan to file on one machine, and
write unshuffled rows without accounting, rejected rows, raw test rows, exact order-free statistics, profiles or
checksums. They are the better tools where one machine holds the table and none of that is wanted; the shuffle is
what makes any part of a file a random sample, and the same rows the same dataset on every cluster.

Driver memory is that of its Python process (flat over rows) and, in local mode, of a JVM that is the executor too and
takes of its heap what it gets.
"""


def page(runs: Runs) -> str:
    """A table of medians, the steps of the last compared run of this package, and what to know before quoting."""
    head = ["rows", "contestant", "runs", "seconds", "times this package", "processor seconds", "peak MiB"]
    lines = ["# Preparation", "", f"| {' | '.join([*head, 'Python', 'JVM'])} |", "|---:|---|" + "---:|" * 7]
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
    return "\n".join(lines) + "\n" + _NOTES


def _median(runs: Runs, key: str) -> float:
    found = [one[key] for one in runs if key in one]
    return float(statistics.median(found)) if found else 0.0
