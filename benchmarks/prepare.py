"""How fast is preparation? The same table and transformations in this package, pyspark.ml, DuckDB and Polars.

    python -m benchmarks.prepare --rows 5000000 [--only package,pyspark_ml] [--scaling 1,2,4,8] [--folder DIR]

Every contestant runs in a process of its own, reads the same Parquet files, fits on the same train rows and writes
Parquet; start-up of Python and the JVM is included. Peers that are not installed go into environments of their own
below the folder. Only this package accounts for rows, computes checksums and publishes; the others just write.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    """Say when a step begins."""
    if total == 0:
        print(f"{time.monotonic() - STARTED:7.1f} s {step}", flush=True)


def pyspark_ml(source: Path, target: Path) -> None:
    """A plain pyspark.ml pipeline that writes Parquet."""
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import Imputer, StandardScaler, StringIndexer, VectorAssembler
    from pyspark.sql import functions as F

    from pipeline.config.training import ClusterConfig
    from pipeline.launch.session import spark_session

    with spark_session(ClusterConfig(), str(target.parent / "workspace")) as spark:
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


def measure(command: list[str]) -> dict[str, float]:
    """Seconds, processor seconds (which other work on the machine hardly changes) and peak memory of a command."""
    import psutil

    started, peak, done = time.monotonic(), {"total": 0.0, "driver": 0.0}, threading.Event()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command)

    def watch() -> None:
        while not done.wait(0.5):
            with_children = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            sizes = [one.memory_info().rss for one in with_children if one.is_running()]
            peak["total"] = max(peak["total"], sum(sizes) / 2**20)
            peak["driver"] = max(peak["driver"], sizes[0] / 2**20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = process.wait()
    done.set()
    if code != 0:
        raise SystemExit(f"{command[:4]} failed with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(cpu, 1),
        **{f"{name}_mib": round(mib) for name, mib in peak.items()},
    }


def run(name: str, folder: Path, source: Path) -> dict[str, float]:
    """One contestant, from an empty target."""
    target = folder / f"out-{name}"
    shutil.rmtree(target, ignore_errors=True)
    if name in PEERS:
        command = peer(name, folder / "environments", source, target)
    else:
        command = [sys.executable, "-m", "benchmarks.prepare", "--contestant", name, str(source), str(target)]
    result = measure(command)
    shutil.rmtree(target, ignore_errors=True)
    return result


def main() -> None:
    """Parse options, generate, run, print one JSON line per run and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--only", default="package,pyspark_ml,duckdb,polars")
    parser.add_argument("--scaling", default="", help="millions of rows, this package alone: 1,2,4,8")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--contestant", nargs=3)
    options = parser.parse_args()
    if options.contestant:
        name, source, target = options.contestant
        {"package": package, "pyspark_ml": pyspark_ml}[name](Path(source), Path(target))
        return
    sizes = [round(float(text) * 1e6) for text in options.scaling.split(",") if text]
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = options.folder or Path(temporary)
        for rows, names in (
            [(options.rows, options.only.split(","))] if not sizes else [(r, ["package"]) for r in sizes]
        ):
            source = Path(temporary, f"rows-{rows}")
            generate(source, rows)
            size = sum(file.stat().st_size for file in source.iterdir()) >> 20
            for name in names:
                found = run(name, folder, source)
                print(
                    json.dumps(
                        {"contestant": name, "rows": rows, "input_mib": size, "load": os.getloadavg()[0], **found}
                    ),
                    flush=True,
                )
            shutil.rmtree(source)


STARTED = time.monotonic()

if __name__ == "__main__":
    main()
