"""Each benchmark still measures what it says: all of them once, with a few rows."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fit, fit_contenders, launch, loader, training
from benchmarks.loader import OURS, SCAN
from benchmarks.results_file import kept
from tests.conftest import REPOSITORY


def test_launchers_are_timed(spark: Any, tmp_path: Path) -> None:
    found = launch.measure(spark, tmp_path, ["barrier over torch", "in process, one rank"], repeats=1)
    assert 0 < found["barrier over torch"]["median"] < 60


def page_of(bench: training.Bench, *parts: Callable[[training.Bench], dict[str, Any]]) -> str:
    return "\n".join(training.page({"machine": "a test", **{part.__name__: part(bench) for part in parts}}))


@pytest.fixture
def bench(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> training.Bench:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return training.Bench(tmp_path, spark, rows=8192, rounds=1, batches=[64], exchanges=["torch in memory"])


def test_steps_are_taken_apart_and_checkpoints_timed(bench: training.Bench) -> None:
    page = page_of(bench, training.steps, training.checkpoint)
    assert "64 rows over torch in memory" in page
    assert "1 of 1 goals met" in page or "0 of 1 goals met" in page


@pytest.mark.slow
def test_ranks_are_compared_with_independent_processes_and_compressions_with_each_other(bench: training.Bench) -> None:
    page = page_of(bench, training.scaling, training.compression)
    assert "two ranks over torch in memory, of two independent processes, 64 rows a step and rank" in page
    assert "powersgd" in page


def test_a_table_is_fitted_as_beside_the_other_estimators(spark: Any, tmp_path: Path) -> None:
    fit.write_table(tmp_path / "table", {"train": 4000, "validation": 400, "test": 40})
    found = fit_contenders.ours(tmp_path, "torch")
    assert 0 < found["validation_loss"] < 0.8
    assert min(found["prepare"], found["train"]) > 0


def test_loaders_read_the_same_rows(tmp_path: Path) -> None:
    options = {"scale": 0.002, "rounds": 1, "only": [OURS, SCAN], "folder": str(tmp_path / "files")}
    loader.measure("tabular", argparse.Namespace(**options, write_only=False, output=str(tmp_path)))
    contenders = kept("loader-tabular", tmp_path)["contenders"]
    assert {name: found["delivered"] for name, found in contenders.items()} == {OURS: 10_000, SCAN: 10_000}
    assert [found["problem"] for found in contenders.values()] == ["", ""]


@pytest.mark.slow
def test_a_preparation_is_timed_step_by_step(tmp_path: Path) -> None:
    options = ["--rows", "1600", "--only", "package", "--unrecorded", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.prepare", *options]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=True).stdout
    assert '"rows": 1600' in said
    assert '"encoding and writing"' in said
