"""`pipeline status`: how a run is doing, from its folder alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import InputMissingError, StorageError
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


def test_a_folder_without_a_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="holds no status"):
        read_status(str(tmp_path))


def _timed(rank: int, own: float) -> dict[str, float]:
    return {"rank": rank, "waiting": 0.25 * own, "computing": 0.75 * own, "communication": 10.0 - own, "saving": 0.0}


def test_it_shows_where_each_rank_spends_its_time_and_which_one_is_slow(tmp_path: Path) -> None:
    record = RunRecord(str(tmp_path))
    record.timings([_timed(0, 4.0), _timed(1, 8.0), _timed(2, 4.0)])
    record.ranks([{"rank": n, "host": "h", "pid": n, "step": 5, "seconds_silent": 0.0} for n in range(3)])
    record.state("running")
    text = "\n".join(read_status(str(tmp_path)).lines())
    assert "rank 1 on h (pid 1): step 5, last sign of life 0 s ago; last epoch: computing 60%, waiting 20%, " in text
    assert "communication 20%" in text
    assert "  slowest: rank 1, 2.0 times the median rank's own time" in text
    record.timings([_timed(0, 4.0), _timed(1, 4.2), _timed(2, 4.0)])
    record.ranks([{"rank": n, "host": "h", "pid": n, "step": 9, "seconds_silent": 0.0} for n in range(3)])
    record.state("finished")
    text = "\n".join(read_status(str(tmp_path)).lines())
    assert "slowest" not in text
    assert "sign of life" not in text, "it is over"


def test_a_status_without_its_fields_is_corrupt(tmp_path: Path) -> None:
    storage.write_json(str(tmp_path / "status.json"), "status", 1, {"stage": "train"})
    with pytest.raises(StorageError, match="has no state, updated; expected a status"):
        read_status(str(tmp_path))
