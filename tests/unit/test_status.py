"""`pipeline status`: how a run is doing, from its folder alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import InputMissingError
from pipeline.launch.record import RunRecord
from pipeline.status import read_status


def _record(folder: Path) -> RunRecord:
    record = RunRecord(str(folder))
    record.state("running", world_size=2, restarts=1)
    record.progress(epoch=2, step=50, steps=100, loss=0.5, rows_per_second=10.0)
    record.metrics({"validation_roc_auc": 0.75}, 50)
    record.ranks([{"rank": 0, "host": "h", "pid": 7, "step": 50, "seconds_silent": 1.0}])
    record.event("checkpoint written")
    return record


def test_it_shows_stage_state_step_ranks_restarts_and_the_last_event(tmp_path: Path) -> None:
    _record(tmp_path).state("running")
    text = "\n".join(read_status(str(tmp_path)).lines())
    for expected in (
        "train, running",
        "epoch 2, step 50 of 100",
        "validation_roc_auc 0.75",
        "rank 0 on h (pid 7): step 50, last sign of life 1 s ago",
        "restarts: 1",
        "last event: checkpoint written",
    ):
        assert expected in text


def test_a_failed_run_shows_its_error(tmp_path: Path) -> None:
    _record(tmp_path).state("failed", error="rank 1 failed: ValueError: no")
    status = read_status(str(tmp_path))
    assert status.state == "failed"
    assert "  error: rank 1 failed: ValueError: no" in status.lines()


def test_a_run_whose_driver_was_killed_is_silent_not_running(tmp_path: Path) -> None:
    _record(tmp_path).state("running")
    url = str(tmp_path / "status.json")
    values = storage.read_json(url, "status", 1)
    storage.write_json(url, "status", 1, {**values, "updated": values["updated"] - 90})
    status = read_status(str(tmp_path))
    assert status.state == "silent"
    assert "nothing written for 90 s" in status.lines()[0]
    assert status.to_json()["state"] == "silent"


def test_a_folder_without_a_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="holds no status"):
        read_status(str(tmp_path))
