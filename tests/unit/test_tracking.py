"""Tracking gets everything to MLflow when MLflow is there, and is harmless when it is not."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("mlflow")

from pipeline import storage, tracking
from pipeline.config import parse_config
from pipeline.config.release import TrackingConfig
from pipeline.errors import InterruptedRunError, ServiceError, StorageError
from pipeline.inference.predictor import Predictor
from pipeline.tracking import Store, load_registered, log_results, register_model, tracking_uri
from tests.small_model import raw_rows, small_dataset, small_model

Tracker = functools.partial(tracking.Tracker, flush_seconds=120.0)
"""Making MLflow's database takes long on a busy machine."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("work [space] ü")


@pytest.fixture(scope="module")
def dataset(workspace):
    return small_dataset(str(workspace / "data"), 800)


@pytest.fixture
def run_url(workspace, request):
    return str(workspace / request.node.name.replace("[", "-").replace("]", ""))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("SOME_PASSWORD", "hunter2")


def configuration(run_url: str):
    return parse_config(
        {
            "features": {"amount": {"type": "numeric"}},
            "label": {"column": "late"},
            "dataset": {"url": "data"},
            "training": {"run_url": run_url, "epochs": 3},
            "cluster": {"spark": {"spark.some.password": "${env:SOME_PASSWORD}"}},
        }
    )


def test_by_default_mlflow_lives_in_a_file_beside_the_run_folder(tmp_path, monkeypatch):
    assert tracking_uri(TrackingConfig(), str(tmp_path / "run")) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    assert tracking_uri(TrackingConfig(), str(tmp_path / "run")) == "http://tracker"
    assert tracking_uri(TrackingConfig(uri="databricks"), "s3://bucket/run") == "databricks"
    secret = TrackingConfig(uri="http://me:${env:SOME_PASSWORD}@tracker")
    assert tracking_uri(secret, "s3://bucket/run") == "http://me:hunter2@tracker"


def test_a_relative_sqlite_file_is_relative_to_the_configuration():
    values = {**configuration("run").model_dump(by_alias=True), "tracking": {"uri": "sqlite:///w/mlflow.db"}}
    assert parse_config(values, "/folder").tracking.uri == "sqlite:////folder/w/mlflow.db"


def test_a_run_has_parameters_metrics_dataset_and_an_end(run_url, dataset):
    with Tracker(TrackingConfig(), run_url) as tracker:
        tracker.parameters(configuration(run_url), dataset)
        for epoch in range(3):
            tracker.metrics({"validation_loss": 0.5 - epoch / 10, "broken": float("nan")}, step=100 * epoch)
    client = Store(TrackingConfig(), run_url).client
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "3"
    assert run.data.params["dataset.train_rows"] == "800"
    assert run.inputs.dataset_inputs[0].dataset.digest == dataset.content_id[:36]
    history = client.get_metric_history(tracker.run_id, "validation_loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.5), (100, 0.4), (200, 0.3)]
    assert "broken" not in run.data.metrics
    assert "hunter2" not in json.dumps(run.to_dictionary())
    assert run.info.artifact_uri.startswith("file://")
    assert "mlflow-artifacts" in run.info.artifact_uri


def test_a_resumed_run_is_the_same_run_and_gets_its_parameters_once(run_url, dataset):
    with contextlib.suppress(InterruptedRunError), Tracker(TrackingConfig(), run_url) as tracker:
        tracker.parameters(configuration(run_url), dataset)
        raise InterruptedRunError("stopped")
    client = Store(TrackingConfig(), run_url).client
    assert client.get_run(tracker.run_id).info.status == "KILLED"
    with Tracker(TrackingConfig(), run_url) as again:
        again.parameters(configuration(run_url), dataset)
        assert client.get_run(again.run_id).info.status == "RUNNING"
    assert again.run_id == tracker.run_id
    assert client.get_run(again.run_id).info.status == "FINISHED"


def test_a_failed_training_leaves_a_failed_run(run_url):
    with pytest.raises(ValueError, match="wrong"), Tracker(TrackingConfig(), run_url) as tracker:
        raise ValueError("wrong")
    assert Store(TrackingConfig(), run_url).client.get_run(tracker.run_id).info.status == "FAILED"


def test_mlflows_settings_are_there_before_its_thread_begins(run_url, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setattr(Store, "open_run", lambda _: (_ for _ in ()).throw(ServiceError("no server")))
    with Tracker(TrackingConfig(), run_url):
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@contextlib.contextmanager
def silent_server():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def test_a_server_that_hangs_delays_no_metric_and_the_end_only_so_long(run_url):
    with silent_server() as port:
        config = TrackingConfig(uri=f"http://127.0.0.1:{port}")
        with Tracker(config, run_url, flush_seconds=1) as tracker:
            started = time.monotonic()
            for step in range(1000):
                tracker.metrics({"loss": 1.0}, step)
            assert time.monotonic() - started < 5
            started = time.monotonic()
        assert time.monotonic() - started < 10
    assert len((Path(run_url) / "tracking-pending.jsonl").read_text().splitlines()) == 1000


def test_metrics_that_mlflow_missed_are_delivered_once_when_it_is_back(run_url, free_port):
    down = TrackingConfig(uri=f"http://127.0.0.1:{free_port}")
    with Tracker(down, run_url, flush_seconds=1) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
        tracker.metrics({"loss": 0.5}, 2)
    assert tracker.run_id is None
    pending = (Path(run_url) / "tracking-pending.jsonl").read_bytes()
    for _ in range(2):  # as if killed after delivery, before the file was removed
        storage.write_bytes(f"{run_url}/tracking-pending.jsonl", pending)
        with Tracker(TrackingConfig(), run_url) as tracker:
            pass
    history = Store(TrackingConfig(), run_url).client.get_metric_history(tracker.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5)]
    assert not (Path(run_url) / "tracking-pending.jsonl").exists()


def test_results_are_added_to_the_run_and_a_missing_server_is_a_warning(run_url, free_port):
    storage.write_bytes(f"{run_url}/report.html", b"<html>")
    run_id = log_results(TrackingConfig(), run_url, {"roc_auc": 0.75}, [f"{run_url}/report.html"])
    client = Store(TrackingConfig(), run_url).client
    assert client.get_run(run_id).data.metrics == {"test_roc_auc": 0.75}
    assert [file.path for file in client.list_artifacts(run_id)] == ["report.html"]
    assert log_results(TrackingConfig(uri=f"http://127.0.0.1:{free_port}"), run_url, {}) is None


@pytest.fixture(scope="module")
def registered(workspace, dataset):
    """A run whose model is registered: (config, run url, version)."""
    run_url = str(workspace / "registered run")
    small_model(f"{run_url}/model", dataset)
    config = TrackingConfig(registered_model="small")
    return config, run_url, register_model(config, run_url, metrics={"roc_auc": 0.9})


def test_a_model_is_registered_once_however_often_it_is_asked_for(registered):
    config, run_url, version = registered
    assert version == register_model(config, run_url) == "1"
    found = Store(config, run_url).client.get_model_version_by_alias("small", "champion")
    assert (str(found.version), found.tags["test_roc_auc"]) == ("1", "0.9")
    assert found.tags["model_sha256"] == Predictor.load(f"{run_url}/model").digest


def test_another_model_is_the_next_version_and_gets_the_alias(registered, workspace, dataset):
    config, _, _ = registered
    run_url = str(workspace / "second run")
    small_model(f"{run_url}/model", dataset, "linear")
    assert register_model(config, run_url) == "2"
    assert str(Store(config, run_url).client.get_model_version_by_alias("small", "champion").version) == "2"


def test_the_registered_model_comes_back_and_predicts_the_same(registered, tmp_path):
    config, run_url, _ = registered
    folder = load_registered(tracking_uri(config, run_url), "small", "1", str(tmp_path))
    rows = raw_rows(50)
    expected = Predictor.load(f"{run_url}/model").predict(rows)
    pd.testing.assert_frame_equal(Predictor.load(folder).predict(rows), expected)
    assert load_registered(tracking_uri(config, run_url), "small", "1", str(tmp_path)) == folder


def test_mlflow_itself_serves_the_same_answers_without_unpickling(registered, monkeypatch):
    import mlflow.pyfunc

    config, run_url, _ = registered
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    source = Store(config, run_url).client.get_model_version("small", "1").source
    rows = raw_rows(50).drop(columns="id")
    answer = mlflow.pyfunc.load_model(source).predict(rows)
    pd.testing.assert_frame_equal(answer, Predictor.load(f"{run_url}/model").predict(rows))
    files = [path.name for path in Path(source.removeprefix("file://").replace("%20", " ")).rglob("*.pkl")]
    assert files == []


def test_a_registered_model_brings_the_code_that_it_needs_and_asks_pip_for_released_packages_only(registered):
    config, run_url, _ = registered
    source = Store(config, run_url).client.get_model_version("small", "1").source
    folder = Path(urllib.parse.unquote(source.removeprefix("file://")))
    program = "from pipeline.inference.predictor import Predictor; import pipeline; print(pipeline.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(folder / "code")}
    loaded = subprocess.run([sys.executable, "-c", program], env=environment, cwd="/", capture_output=True, text=True)
    assert loaded.stdout.strip() == str(folder / "code" / "pipeline" / "__init__.py"), loaded.stderr
    requirements = (folder / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert "spark-torch-pipeline" not in requirements
    assert "+" not in requirements


def test_a_run_that_mlflow_has_no_more_gets_another_one(workspace, dataset, tmp_path):
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", registered_model="small")
    run_url = str(tmp_path / "run")
    small_model(f"{run_url}/model", dataset)
    store = Store(config, run_url)
    first, _ = store.open_run()
    store.client.delete_run(first)
    assert register_model(config, run_url) == "1"
    second, new = store.find_or_create_run()
    assert (second != first, new) == (True, False)
    assert store.client.get_run(second).info.status == "FINISHED"
    assert store.client.get_model_version("small", "1").run_id == second


def test_a_corrupt_model_folder_is_not_registered(workspace, registered, tmp_path):
    config, run_url, _ = registered
    for file in Path(run_url, "model").iterdir():
        storage.write_bytes(str(tmp_path / "model" / file.name), file.read_bytes())
    storage.write_bytes(str(tmp_path / "model" / "weights.safetensors"), b"nonsense")
    with pytest.raises(StorageError, match="corrupt"):
        register_model(config, str(tmp_path))


def test_registering_without_mlflow_says_what_to_do(registered, free_port):
    _, run_url, _ = registered
    config = TrackingConfig(uri=f"http://user:secret@127.0.0.1:{free_port}", registered_model="small")
    with pytest.raises(ServiceError, match=r"set tracking.uri, and run the same command again") as caught:
        register_model(config, run_url)
    assert "secret" not in str(caught.value)
