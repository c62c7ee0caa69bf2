"""The whole flow on a slice of real flights: what it leaves, what it reuses, and how it ends when it is disturbed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipeline.config import load_config, parse_config
from pipeline.dataset import Dataset
from pipeline.preparation.prepare import prepare_dataset
from tests.jobs.conftest import FLIGHTS, Started, read_result

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="module")
def finished(
    arguments: Arguments, run_command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A workspace in which `pipeline run` has ended well, and its RESULT."""
    workspace = tmp_path_factory.mktemp("finished")
    ended = run_command(*arguments("run", workspace))
    assert ended.returncode == 0, ended.stderr[-4000:]
    return workspace, read_result(ended.stdout)


def test_every_row_is_accounted_for(finished: tuple[Path, dict[str, Any]], flights_data: Path) -> None:
    workspace, result = finished
    rows = result["rows"]
    assert rows["in"] == len((flights_data / "flights.csv").read_text().splitlines()) - 1
    assert rows["in"] == rows["published"] + rows["duplicates"] + rows["rejected"]
    manifest = Dataset.open(str(workspace / "flights")).manifest
    assert rows["published"] == sum(manifest.rows(split) for split in manifest.splits)
    assert any("late" in reason for reason in manifest.accounting.reasons), "cancelled flights have no label"


def test_the_run_folder_holds_what_was_promised(finished: tuple[Path, dict[str, Any]]) -> None:
    workspace, result = finished
    run = workspace / "runs" / "flights"
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "status.json",
        "model",
        "evaluation.json",
        "report.html",
        "result.json",
    ):
        assert (run / name).exists(), name
    assert not (run / "lease.json").exists()
    assert json.loads((run / "result.json").read_text())["metrics"] == result["metrics"]


def test_the_model_is_measured_and_registered(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    assert {"accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc", "log_loss"} <= result["metrics"].keys()
    assert result["metrics"]["roc_auc"] > 0.55, "two epochs on a tenth of the rows learn something"
    assert result["model"]["name"] == "flights"
    assert result["model"]["version"] == "1"


def test_a_second_run_reuses_everything_and_says_so(
    finished: tuple[Path, dict[str, Any]], arguments: Arguments, run_command
) -> None:
    workspace, first = finished
    ended = run_command(*arguments("run", workspace))
    again = read_result(ended.stdout)
    assert again["reused"] == ["prepare", "train", "evaluate"]
    assert {key: again[key] for key in ("metrics", "model", "rows")} == {
        key: first[key] for key in ("metrics", "model", "rows")
    }
    assert "already published" in ended.stderr
    assert "already trained" in ended.stderr


def _copy_of_dataset(finished: tuple[Path, dict[str, Any]], workspace: Path) -> Path:
    shutil.copytree(finished[0] / "flights", workspace / "flights")
    return workspace


def _step(workspace: Path) -> int:
    status = workspace / "runs" / "flights" / "status.json"
    return int(json.loads(status.read_text()).get("step") or 0) if status.exists() else 0


STANDS_STILL_ONCE = """
import pathlib, time

def callback(progress, metrics):
    mark = pathlib.Path(__file__).with_name("stood-still")
    if not mark.exists():
        mark.touch()
        time.sleep(60)
"""


def test_a_run_killed_in_training_resumes_and_ends_with_the_very_same_metrics(
    finished: tuple[Path, dict[str, Any]],
    arguments: Arguments,
    start: Callable[[list[str]], Started],
    run_command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = _copy_of_dataset(finished, tmp_path)
    (tmp_path / "stands_still.py").write_text(STANDS_STILL_ONCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    overrides = ("training.checkpoint.every_steps=3", "training.callback=stands_still:callback")
    killed = start(arguments("run", workspace, *overrides))
    killed.wait_for((tmp_path / "stood-still").exists)
    killed.wait_for(lambda: any((workspace / "runs" / "flights" / "checkpoints").glob("*/manifest.json")))
    killed.kill()
    ended = run_command(*arguments("run", workspace, *overrides))
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "resum" in ended.stderr
    assert read_result(ended.stdout)["metrics"] == finished[1]["metrics"]


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate", "register"])
def test_ctrl_c_in_a_stage_ends_with_75_and_leaves_nothing_behind(
    stage: str,
    finished: tuple[Path, dict[str, Any]],
    arguments: Arguments,
    start: Callable[[list[str]], Started],
    run_command,
    tmp_path: Path,
) -> None:
    if stage in ("evaluate", "register"):
        shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
        (tmp_path / {"evaluate": "runs/flights/evaluation.json", "register": "mlflow.db"}[stage]).unlink()
    elif stage == "train":
        _copy_of_dataset(finished, tmp_path)
    endless = ("training.epochs=1000",) if stage == "train" else ()
    started = start(arguments("run", tmp_path, *endless))
    at_work = "prepare: cleaning and splitting" if stage == "prepare" else f"{stage}: started"
    started.wait_for(lambda: at_work in started.stderr.read_text())
    if stage == "train":
        started.wait_for(lambda: _step(tmp_path) >= 1)
    started.interrupt()
    code, result, stderr = started.result(60)
    assert code == 75, stderr[-3000:]
    assert (result["status"], result["code"], result["stage"]) == ("interrupted", 75, stage)
    assert "error[75]" in stderr
    assert "Traceback" not in stderr
    if stage == "prepare":
        assert not (tmp_path / "flights" / "_commits").exists()
    assert not list(tmp_path.rglob("lease.json"))
    if stage == "register":
        ended = run_command(*arguments("run", tmp_path))
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert read_result(ended.stdout)["model"]["version"] == "1"


def test_ctrl_c_while_scoring_ends_with_75_and_leaves_nothing_behind(
    finished: tuple[Path, dict[str, Any]],
    arguments: Arguments,
    start: Callable[[list[str]], Started],
    tmp_path: Path,
) -> None:
    (held_out,) = (finished[0] / "flights").glob("versions/*/raw/test")
    verb, config, *settings = arguments("score", finished[0])
    out = tmp_path / "out"
    out.mkdir()
    started = start([verb, config, str(held_out), str(out / "scored"), *settings])
    started.wait_for(lambda: any(out.glob("*.unfinished/table-*")))  # Spark's tasks write there
    started.interrupt()
    code, result, stderr = started.result(60)
    assert (code, result["code"]) == (75, 75), stderr[-3000:]
    assert "Traceback" not in stderr
    assert not list(out.iterdir())


def test_no_flight_of_the_year_is_lost(spark: SparkSession, flights_data: Path, tmp_path: Path) -> None:
    config = load_config(str(FLIGHTS / "pipeline.yaml"))
    assert flights_data.exists(), "of which the whole tables were fetched"
    values = config.model_dump(mode="json", exclude_unset=True)
    values["features"] = {"carrier": {"type": "categorical"}, "distance": {"type": "numeric"}}
    values["dataset"] |= {"url": str(tmp_path / "flights")}
    dataset = prepare_dataset(spark, parse_config(values))
    rows = dataset.manifest.accounting
    assert (rows.rows_in, rows.published, rows.duplicates, rows.rejected) == (336_776, 327_346, 0, 9_430)
    assert dict(rows.reasons) == {"label late is null": 9_430}
    assert rows.published == sum(dataset.manifest.rows(split) for split in dataset.manifest.splits)
