"""How fast is preparation? The same table and transformations in this package, pyspark.ml, DuckDB and Polars.

    python -m benchmarks.prepare --rows 5000000 --repetitions 3 [--only package,pyspark_ml] [--folder DIR]
    python -m benchmarks.prepare --scaling 1,2,4,8 --only package

Every contestant runs in a process of its own, reads the same Parquet files, fits on the same train rows and writes
Parquet; start-up of Python and the JVM is included, and the rows that were written are counted. Peers that are not
installed go into environments of their own below the folder. Only this package accounts for rows, deduplicates,
shuffles, computes checksums, keeps a profile and publishes; the others just write. Repetitions are interleaved.
Runs are added to benchmarks/results/prepare.json, and prepare.md is made of all of them; `--fresh` begins anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.prepare_page import page
from benchmarks.results_file import keep, kept

NUMBERS = [f"n{number}" for number in range(22)]
TEXTS = [f"c{number}" for number in range(14)]
CARDINALITIES = [2, 3, 5, 8, 12, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
FILES = 16
PEERS = {"duckdb": "duckdb==1.4.2", "polars": "polars==1.35.2"}


def generate(folder: Path, rows: int) -> None:
    """Write a table of 40 columns: id, 22 numbers with nulls, 14 texts, a timestamp, a truth value, a label."""
    folder.mkdir(parents=True)
    per_file = rows // FILES
    for number in range(FILES):
        random = np.random.default_rng([7, number])
        columns: dict[str, pa.Array] = {"id": pa.array(np.arange(number * per_file, (number + 1) * per_file))}
        score = random.normal(size=per_file)
        for place, name in enumerate(NUMBERS):
            values = random.gamma(2, 10, per_file) if place % 2 else random.normal(100, 15, per_file)
            score += (values - values.mean()) / values.std() * 0.1
            columns[name] = pa.array(np.round(values, 2), mask=random.random(per_file) < 0.03)
        for name, size in zip(TEXTS, CARDINALITIES, strict=True):
            picked = np.minimum(random.zipf(1.3, per_file), size) - 1
            words = pa.array([f"value {word}" for word in range(size)])
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(picked.astype(np.int32)), words).cast(pa.string())
        moments = np.datetime64("2024-01-01", "us") + random.integers(0, 366 * 86_400, per_file).astype(
            "timedelta64[s]"
        )
        columns["t"] = pa.array(moments, pa.timestamp("us", "UTC"))
        columns["b"] = pa.array(random.random(per_file) < 0.5)
        columns["label"] = pa.array((score > 0.5).astype(np.int32))
        pq.write_table(pa.table(columns), folder / f"part-{number:02d}.parquet", row_group_size=1 << 17)


def package(source: Path, target: Path) -> None:
    """This package, everything included."""
    from pipeline.config import parse_config
    from pipeline.config.training import ClusterConfig
    from pipeline.launch.session import spark_session
    from pipeline.preparation.prepare import prepare_dataset

    features = {name: {"type": "numeric", "missing": "mean"} for name in NUMBERS}
    features |= {name: {"type": "categorical"} for name in TEXTS}
    features |= {"t": {"type": "timestamp", "parts": ["month", "weekday", "hour"]}, "b": {"type": "boolean"}}
    config = parse_config(
        {
            "source": {"inputs": {"table": {"path": str(source), "format": "parquet"}}, "id": "id"},
            "features": features,
            "label": {"column": "label"},
            "dataset": {"url": str(target), "wide": False},
            "training": {"run_url": str(target / "run")},
        }
    )
    with spark_session(ClusterConfig(), str(target.parent / "workspace")) as spark:
        prepare_dataset(spark, config, progress=tell)


def tell(step: str, done: int, total: int) -> None:
    """Say when a step begins, in a form that `measure` reads."""
    if total == 0:
        print(f"STEP {time.monotonic() - STARTED:.1f} {step}", flush=True)


def pyspark_ml(source: Path, target: Path) -> None:
    """A plain pyspark.ml pipeline that writes Parquet, in a plain session with as much memory as ours."""
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import Imputer, StandardScaler, StringIndexer, VectorAssembler
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    from pipeline.launch.session import driver_gib

    session = SparkSession.builder.master("local[*]").config("spark.driver.memory", f"{driver_gib()}g")
    session = session.config("spark.local.dir", str(target.parent / "spark")).config("spark.ui.enabled", "false")
    session = session.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    with session.getOrCreate() as spark:
        table = spark.read.parquet(str(source))
        place = F.pmod(F.xxhash64("id"), F.lit(10))
        split = F.when(place < 1, "test").when(place < 2, "validation").otherwise("train")
        table = table.withColumns(
            {
                "split": split,
                "month": F.month("t"),
                "weekday": F.weekday("t"),
                "hour": F.hour("t"),
                "flag": F.col("b").cast("int"),
            }
        )
        imputed, ids = [f"{name}_i" for name in NUMBERS], [f"{name}_id" for name in TEXTS]
        stages = [
            Imputer(inputCols=NUMBERS, outputCols=imputed),
            StringIndexer(inputCols=TEXTS, outputCols=ids, handleInvalid="keep"),
            VectorAssembler(inputCols=imputed, outputCol="numbers"),
            StandardScaler(inputCol="numbers", outputCol="scaled", withMean=True),
            VectorAssembler(inputCols=["scaled", *ids, "month", "weekday", "hour", "flag"], outputCol="features"),
        ]
        model = Pipeline(stages=stages).fit(table.where("split = 'train'"))
        encoded = model.transform(table).select("id", "label", "features", "split")
        encoded.write.partitionBy("split").parquet(str(target))


def peer(name: str, environments: Path, source: Path, target: Path) -> list[str]:
    """The command that runs a peer, installed on first use."""
    environment = environments / PEERS[name].replace("==", "-")
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PEERS[name]], check=True)
    script = Path(__file__).parent / "peers" / f"prepare_{name}.py"
    return [str(python), str(script), str(source), str(target), ",".join(NUMBERS), ",".join(TEXTS)]


def measure(command: list[str]) -> dict[str, Any]:
    """Seconds, processor seconds, peak memory and, where the command tells its steps, the seconds of each."""
    started, done, peak = time.monotonic(), threading.Event(), {"total": 0.0, "python": 0.0, "jvm": 0.0}
    processor: dict[int, float] = {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watcher = threading.Thread(target=_watch, args=(process.pid, done, peak, processor), daemon=True)
    watcher.start()
    assert process.stdout is not None
    told = [line.split(" ", 2)[1:] for line in process.stdout if line.startswith("STEP ")]
    code = process.wait()
    ended = time.monotonic() - started
    done.set()
    watcher.join()
    if code != 0:
        raise SystemExit(f"{command[:4]} failed with {code}")
    found: dict[str, Any] = {
        "seconds": round(ended, 1),
        "cpu_seconds": round(sum(processor.values()), 1),
        **{f"{name}_mib": round(mib) for name, mib in peak.items() if mib},
    }
    if told:
        begins = [float(second) for second, _ in told]
        names = ["starting Spark", *(name.strip() for _, name in told)]
        lengths = np.diff([0.0, *begins, ended])
        found["steps"] = {name: round(float(length), 1) for name, length in zip(names, lengths, strict=True)}
    return found


def _watch(pid: int, done: threading.Event, peak: dict[str, float], processor: dict[int, float]) -> None:
    """Peak resident memory of all processes, of the driver's Python alone and of its JVM alone; their processor time.

    Looked at twice a second, since Spark's workers are nobody's children when they have ended.
    """
    import psutil

    while not done.wait(0.5):
        sizes = {"total": 0.0, "python": 0.0, "jvm": 0.0}
        try:
            for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                mib = one.memory_info().rss / 2**20
                processor[one.pid] = sum(one.cpu_times()[:2])
                sizes["total"] += mib
                sizes["python"] += mib if one.pid == pid else 0
                sizes["jvm"] += mib if "java" in one.name() else 0
        except psutil.Error:
            continue
        for name, mib in sizes.items():
            peak[name] = max(peak[name], mib)


def rows_in(target: Path) -> int:
    """Rows of the encoded Parquet files below a folder."""
    files = (file for file in target.rglob("*.parquet") if "raw" not in file.parts)
    return sum(int(pq.read_metadata(file).num_rows) for file in files)


def run(name: str, folder: Path, source: Path, rows: int) -> dict[str, Any]:
    """One contestant, from an empty target."""
    target = folder / f"out-{name}"
    shutil.rmtree(target, ignore_errors=True)
    if name in PEERS:
        command = peer(name, folder / "environments", source, target)
    else:
        command = [sys.executable, "-m", "benchmarks.prepare", "--contestant", name, str(source), str(target)]
    found = measure(command)
    written = rows_in(target)
    if written != rows:
        raise SystemExit(f"{name} wrote {written:,} rows of {rows:,}")
    shutil.rmtree(target)
    size = sum(file.stat().st_size for file in source.iterdir()) >> 20
    return {"contestant": name, "rows": rows, "input_mib": size, "load": round(os.getloadavg()[0], 1), **found}


def source_of(folder: Path, rows: int) -> Path:
    """The generated table of so many rows; made once per folder."""
    source = folder / f"rows-{rows}"
    if not source.exists():
        shutil.rmtree(folder / "generating", ignore_errors=True)
        generate(folder / "generating", rows)
        (folder / "generating").rename(source)
    return source


def main() -> None:
    """Parse options, generate, run, print one JSON line per run; write results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--only", default="package,pyspark_ml,duckdb,polars")
    parser.add_argument("--scaling", default="", help="millions of rows instead of --rows: 1,2,4,8")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps generated tables and peers' environments between calls")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    parser.add_argument("--unrecorded", action="store_true", help="write no results")
    parser.add_argument("--contestant", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        name, source, target = options.contestant
        {"package": package, "pyspark_ml": pyspark_ml}[name](Path(source), Path(target))
        return
    sizes = [round(float(text) * 1e6) // FILES * FILES for text in options.scaling.split(",") if text]
    runs = []
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = options.folder or Path(temporary)
        for rows in sizes or [options.rows // FILES * FILES]:
            source = source_of(folder, rows)
            for _ in range(options.repetitions):
                for name in options.only.split(","):
                    runs.append(run(name, folder, source, rows))
                    print(json.dumps(runs[-1]), flush=True)
    if not options.unrecorded:
        earlier = [] if options.fresh else kept("prepare").get("runs", [])
        keep("prepare", {"runs": [*earlier, *runs]}, page)


STARTED = time.monotonic()

if __name__ == "__main__":
    main()
