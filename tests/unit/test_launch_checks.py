"""What `launch_training` looks at before ranks start: Spark and its executors are replaced by what they would say."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.errors import ServiceError
from pipeline.launch import horovod_run, launch_training
from pipeline.launch import launch as launch_module
from pipeline.launch.resources import ClusterFacts
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset
from tests.stacks import needs_horovod


@pytest.fixture
def task(tmp_path: Path) -> TrainingTask:
    dataset = tiny_dataset(str(tmp_path / "data"), 100)
    training = TrainingConfig(run_url=str(tmp_path / "run"), global_batch_size=2)
    return TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="linear"), training)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three slots of a cluster; what is looked at on it, and there the launch ends."""
    seen: list[str] = []

    def end(name: str) -> Any:
        def look(*_: Any, **__: Any) -> None:
            seen.append(name)
            raise ServiceError(f"ended in {name}")

        return look

    facts = ClusterFacts("spark://host:7077", slots=3, local=False)
    monkeypatch.setattr(launch_module, "refuse_unfit", lambda *_: seen.append("settings"))
    monkeypatch.setattr(launch_module, "wait_for_slots", lambda *_: facts)
    monkeypatch.setattr(launch_module, "preflight", end("executors"))
    monkeypatch.setattr(launch_module, "preflight_here", end("driver"))
    return seen


def test_a_training_warns_of_what_the_dry_run_would_have_warned_of(
    task: TrainingTask, looked_at: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ServiceError, match="ended in"):
        launch_training(SimpleNamespace(), task, ClusterConfig(master="spark://host:7077"))  # type: ignore[arg-type]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("global_batch_size 2 gives some of the 3 ranks no row in a step" in line for line in warned)
    assert any("one machine is enough" in line for line in warned)


@pytest.mark.parametrize("launcher", ["barrier", pytest.param("horovod", marks=needs_horovod)])
def test_settings_and_executors_of_a_cluster_are_looked_at_before_ranks_start(
    task: TrainingTask, looked_at: list[str], launcher: Any
) -> None:
    with pytest.raises(ServiceError, match="ended in executors"):
        launch_training(SimpleNamespace(), task, ClusterConfig(launcher=launcher))  # type: ignore[arg-type]
    assert looked_at == ["settings", "executors"]


def test_in_local_mode_the_driver_looks_for_itself(
    task: TrainingTask, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "wait_for_slots", lambda *_: ClusterFacts("local[2]", 2))
    with pytest.raises(ServiceError, match="ended in driver"):
        launch_training(SimpleNamespace(), task, ClusterConfig())  # type: ignore[arg-type]
    assert looked_at == ["settings", "driver"]


def test_executors_are_judged_by_the_memory_that_a_rank_is_estimated_to_need(
    task: TrainingTask, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def preflight(spark: Any, task: Any, cluster: Any, resources: Any, rank_mib: int) -> None:
        raise ServiceError(f"{resources.num_proc} ranks of {rank_mib} MiB")

    monkeypatch.setattr(launch_module, "preflight", preflight)
    with pytest.raises(ServiceError, match=r"3 ranks of [4-9]\d\d MiB"):
        launch_training(SimpleNamespace(), task, ClusterConfig())  # type: ignore[arg-type]


@needs_horovod
@pytest.mark.parametrize(("given", "seen"), [(["3"], "3"), ([], None)])
def test_horovods_own_launcher_shows_a_rank_the_gpu_that_spark_gave_it(
    given: list[str], seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from horovod.spark import task

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(task, "get_available_devices", lambda: given)
    monkeypatch.setattr(horovod_run, "run_started_rank", lambda _: os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert horovod_run._run_rank(SimpleNamespace()) == seen  # type: ignore[arg-type]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
