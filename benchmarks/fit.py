"""From a Parquet table to a trained model: this package beside Horovod's estimator and pyspark's TorchDistributor.

    python -m benchmarks.training fit

The estimator needs pyarrow 10, which lies in a folder of its own below the user's cache and is put before the other
packages; all the rest (Python, torch, Horovod, Petastorm, Spark) is the very same for everybody.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fit_contenders import CONTENDERS, EPOCHS, FEATURES, RANK_ROWS, RANKS
from benchmarks.loader import CACHE
from benchmarks.results_file import Goal, table

ROWS = {"train": 300_000, "validation": 16_000, "test": 1_000}
ROUNDS = 3
_FILES = 8
_OURS = ("ours over horovod", "ours over torch")
_DISTRIBUTOR = "TorchDistributor with DDP"
_ESTIMATOR = "Horovod's TorchEstimator"
_ESTIMATOR_NEEDS = [
    "pyarrow==10.0.1",
    "tensorboard==2.18.0",
    "tensorboard-data-server==0.7.2",
    "absl-py==2.5.1",
    "markdown==3.11.3",
    "werkzeug==3.1.9",
    "grpcio==1.85.1",
]


def write_table(folder: Path, split_rows: Mapping[str, int] = ROWS) -> None:
    """Rows of 20 numbers whose label is a noisy function of them, with a column that says the split."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    rows = sum(split_rows.values())
    x = random.normal(size=(rows, len(FEATURES))).astype(np.float32)
    score = x @ random.normal(size=len(FEATURES)) + np.sin(3 * x[:, 0]) * x[:, 1] + random.normal(size=rows)
    split = random.permutation(np.repeat(list(split_rows), list(split_rows.values())))
    columns = {"id": np.arange(rows), **{name: x[:, number] for number, name in enumerate(FEATURES)}}
    whole = pa.table({**columns, "label": (score > 0).astype(np.float32), "split": split})
    size = -(-rows // _FILES)
    for number in range(_FILES):
        pq.write_table(whole.slice(number * size, size), folder / f"part-{number}.parquet")


def pyarrow_10() -> Path:
    """The folder with what only the estimator needs, installed once."""
    folder = CACHE / "estimator"
    if not (folder / "pyarrow").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*install, *_ESTIMATOR_NEEDS], check=True)
    return folder


def fit_once(name: str, folder: Path) -> dict[str, float]:
    """One fit in a process of its own; its seconds by phase, and ``process`` for all of it."""
    paths = [str(pyarrow_10())] if name == _ESTIMATOR else []
    python = {"PYTHONPATH": os.pathsep.join([*paths, os.getcwd()]), "PYSPARK_PYTHON": sys.executable}
    environment = {**os.environ, **python, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "benchmarks.fit_contenders", name, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path) -> dict[str, Any]:
    """Rounds in which everybody fits once; medians in seconds."""
    write_table(folder / "table")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(ROUNDS):
        for name in CONTENDERS:
            place = folder / f"{number}-{name.replace(' ', '-')}"
            place.mkdir()
            (place / "table").symlink_to(folder / "table")
            found[name].append(fit_once(name, place))
            print(number, name, found[name][-1], file=sys.stderr, flush=True)
    medians = {
        name: {key: round(statistics.median(one[key] for one in rounds), 4) for key in rounds[0]}
        for name, rounds in found.items()
    }
    return {"rows": ROWS, "rounds": ROUNDS, "seconds": medians}


def goals(values: dict[str, Any]) -> list[Goal]:
    """Beside others."""
    seconds = values["seconds"]
    all_in = min(_all_in(seconds[name]) for name in _OURS)
    train = min(seconds[name]["train"] for name in _OURS)
    return [
        Goal("times as fast as Horovod's TorchEstimator, all in", _all_in(seconds[_ESTIMATOR]) / all_in, 4),
        Goal("times as fast as pyspark's TorchDistributor, training", seconds[_DISTRIBUTOR]["train"] / train, 1),
    ]


def _all_in(times: dict[str, float]) -> float:
    return times.get("fit", times.get("prepare", 0.0) + times.get("train", 0.0))


def page(values: dict[str, Any]) -> list[str]:
    """The section of the page."""
    phases = ("prepare", "train", "all in", "process")
    rows = [
        [name, *(f"{times[key]:.1f}" if key in times else "" for key in phases), f"{times['validation_loss']:.3f}"]
        for name, times in ((name, {**one, "all in": _all_in(one)}) for name, one in values["seconds"].items())
    ]
    head = ["", "prepare s", "train s", "from table to model s", "whole process s", "validation loss"]
    return [
        "## From a table to a trained model",
        "",
        f"{values['rows']['train']:,} rows of {len(FEATURES)} floats, {EPOCHS} epochs, {RANKS} ranks, {RANK_ROWS} rows "
        f"a step and rank, the same perceptron; Spark is up; medians of {values['rounds']} rounds. Ours prepares "
        "(accounting, checksums, atomic publish), trains with checkpoints and MLflow, and leaves a model folder; the "
        "estimator writes the table to its store and trains; the distributor only trains.",
        "",
        *table(head, rows),
    ]
