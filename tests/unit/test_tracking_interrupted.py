"""Tracking that is broken off loses no metric, and says whose error it was."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mlflow")

from pipeline import tracking
from pipeline.config.release import TrackingConfig
from pipeline.errors import InterruptedRunError, ServiceError, StorageError
from pipeline.tracking.store import mlflow_errors


@pytest.mark.parametrize(
    ("error", "seconds"), [(KeyboardInterrupt(), 3.0), (InterruptedRunError("stopped"), 3.0), (ValueError("bad"), 20.0)]
)
def test_after_an_interrupt_mlflow_is_waited_for_only_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, seconds: float
) -> None:
    waited: list[float] = []
    tracker = tracking.Tracker(TrackingConfig(), str(tmp_path / "run"))
    monkeypatch.setattr(tracker, "_idle", SimpleNamespace(wait=waited.append, set=lambda: None))
    with pytest.raises(type(error)), tracker:
        raise error
    tracker._thread.join()
    assert waited == [seconds]


def test_ctrl_c_while_mlflow_is_waited_for_loses_no_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    tracker = tracking.Tracker(TrackingConfig(), str(tmp_path / "run"))
    monkeypatch.setattr(tracker, "_attempt", lambda task: True)  # which brings no metric
    monkeypatch.setattr(tracker, "_idle", SimpleNamespace(wait=interrupt, set=lambda: None))
    with pytest.raises(KeyboardInterrupt), tracker:
        tracker.metrics({"loss": 0.5}, 7)
    tracker._thread.join()
    (kept,) = (tmp_path / "run" / "tracking-pending.jsonl").read_text().splitlines()
    assert (json.loads(kept)["key"], json.loads(kept)["step"]) == ("loss", 7)


def test_an_error_of_our_own_is_none_of_mlflows() -> None:
    def fail(error: Exception) -> None:
        with mlflow_errors("http://me:secret@tracker"):
            raise error

    with pytest.raises(StorageError) as caught:
        fail(StorageError("model/weights is not usable: No space left on device; the disk is full"))
    assert str(caught.value) == "model/weights is not usable: No space left on device; the disk is full"
    with pytest.raises(ServiceError, match=r"MLflow at http://\*\*\*@tracker is not usable: timeout"):
        fail(OSError("timeout"))
