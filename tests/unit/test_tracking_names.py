"""Whatever metrics are called, MLflow gets them under a name that it takes, and none keeps the others back."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mlflow")

from mlflow.utils.validation import _validate_metric_name

from pipeline import tracking
from pipeline.config.release import TrackingConfig
from pipeline.tracking import Store, log_results, register_model
from pipeline.tracking.store import mlflow_name
from tests.small_model import small_dataset, small_model

WARNED = "tracking: hit@5 is hit_5 in MLflow, which takes fewer characters in names"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("validation_loss", "validation_loss"),
        ("größe 2/a-b.c:d", "größe 2/a-b.c:d"),
        ("hit@5", "hit_5"),
        ("roc_auc_late (15 min)", "roc_auc_late _15 min_"),
        ("a//b", "a__b"),
        ("../a", "___a"),
        ("/a", "_a"),
        (".", "_"),
        ("a" * 300, "a" * 250),
    ],
)
def test_a_name_keeps_what_mlflow_takes(name: str, known: str) -> None:
    assert mlflow_name(name) == known
    _validate_metric_name(known)


def test_metrics_of_any_name_arrive_and_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, run_url = TrackingConfig(), str(tmp_path / "run")
    with tracking.Tracker(config, run_url, flush_seconds=120.0) as tracker:
        for step in (1, 2):
            tracker.metrics({"loss": 0.5, "hit@5": 0.25}, step)
    assert Store(config, run_url).client.get_run(tracker.run_id).data.metrics == {"loss": 0.5, "hit_5": 0.25}
    assert not (tmp_path / "run" / "tracking-pending.jsonl").exists()
    assert [record.message for record in caplog.records if record.name.startswith("pipeline")] == [WARNED]
    run_id = log_results(config, run_url, {"hit@5": 0.75})
    assert Store(config, run_url).client.get_run(run_id).data.metrics["test_hit_5"] == 0.75


def test_what_mlflow_refuses_all_the_same_keeps_nothing_else_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.tracking.store.mlflow_name", lambda name: name)
    store = Store(TrackingConfig(), str(tmp_path / "run"))
    run_id, _ = store.open_run()
    records = [{"key": name, "value": 1.0, "timestamp": 1, "step": 1} for name in ("first", "hit@5", "last")]
    store.log_metrics(run_id, records)
    store.log_parameters(run_id, {"features.a": "numeric", "features.b#": "numeric"})
    data = store.client.get_run(run_id).data
    assert data.metrics == {"first": 1.0, "last": 1.0}
    assert data.params == {"features.a": "numeric"}
    refused = [record.message for record in caplog.records if "MLflow refuses" in record.message]
    assert [text.split(": ")[1] for text in refused] == ["MLflow refuses hit@5", "MLflow refuses features.b#"]


@pytest.fixture(scope="module")
def run_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run folder with a model."""
    folder = tmp_path_factory.mktemp("run")
    small_model(str(folder / "model"), small_dataset(str(folder / "data"), 100), steps=1)
    return str(folder)


def test_a_model_version_takes_metrics_of_any_name(run_url: str) -> None:
    config = TrackingConfig(registered_model="small")
    version = register_model(config, run_url, metrics={"roc_auc_late (15 min)": 0.9})
    tags = Store(config, run_url).client.get_model_version("small", version).tags
    assert tags["test_roc_auc_late _15 min_"] == "0.9"
