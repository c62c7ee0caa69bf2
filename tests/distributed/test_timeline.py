"""Two real ranks whose Horovod writes its timeline, twice in the same Python workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pydantic import ValidationError
from pyspark import cloudpickle

import pipeline.stack as stack
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.errors import ConfigError, RankFailedError
from pipeline.launch import launch_training
from pipeline.launch.rank import TRAIN
from pipeline.launch.timeline import timeline_variables
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset
from tests.stacks import needs_horovod

STEPS = 16


@pytest.fixture(autouse=True)
def bodies_travel_by_value() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def _train(spark: Any, folder: Path, run: str, body: Any = TRAIN) -> Path:
    dataset = tiny_dataset(str(folder / "data"), rows={"train": 1000})
    training = TrainingConfig(run_url=str(folder / run), epochs=2, global_batch_size=125, bucket_bytes=1024)
    model = ModelConfig(name="tabular", options={"hidden": [16, 8]})
    task = TrainingTask(dataset.url, dataset.content_id, model, training)
    cluster = ClusterConfig(num_proc=2, collective="horovod", horovod_timeline=True)
    launch_training(spark, task, cluster, body=body)
    [timeline] = (folder / run / "timeline").iterdir()
    return timeline


def _sums(timeline: Path) -> dict[str, list[dict[str, Any]]]:
    """The events of each tensor by its name; the file has one process per tensor."""
    events = json.loads(timeline.read_text())
    named = [event for event in events if event.get("name") == "process_name" and "name" in event["args"]]
    names = {event["pid"]: event["args"]["name"] for event in named}
    return {name: [event for event in events if event["pid"] == pid and "ts" in event] for pid, name in names.items()}


@needs_horovod
@pytest.mark.distributed
def test_each_training_of_a_session_leaves_a_timeline_of_every_bucket_in_every_step(spark: Any, tmp_path: Path) -> None:
    for run in ("one", "two"):
        sums = _sums(_train(spark, tmp_path, run))
        buckets = {name: events for name, events in sums.items() if "gradients" in name}
        assert len(buckets) >= 2
        for events in buckets.values():
            assert sum(event.get("name") == "ALLREDUCE" for event in events) == STEPS
            announced = {event["name"] for event in events if event["ph"] == "X"}
            assert {"0", "1"} <= announced, "both ranks have announced it"


def _rank_one_raises(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    import numpy as np

    collective.sum(np.zeros(1))
    if collective.rank == 1:
        raise ZeroDivisionError("the user's own mistake")
    collective.sum(np.zeros(1))


@needs_horovod
@pytest.mark.distributed
@pytest.mark.slow
def test_a_failing_rank_ends_a_training_with_a_timeline_too(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match="ZeroDivisionError"):
        _train(spark, tmp_path, "failed", _rank_one_raises)
    assert list((tmp_path / "failed" / "timeline").iterdir())


def test_a_timeline_for_a_remote_store_is_copied_there_in_the_end() -> None:
    url = "memory://runs/timeline/now.json"
    with timeline_variables(url) as variables:
        Path(variables["HOROVOD_TIMELINE"]).write_text("[]")
    assert fsspec.filesystem("memory").cat_file("/runs/timeline/now.json") == b"[]"
    assert not Path(variables["HOROVOD_TIMELINE"]).exists()
    with timeline_variables(None) as variables:
        assert variables == {}


def test_only_horovod_has_a_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"collective": "torch"}, {"launcher": "in_process"}):
        with pytest.raises(ValidationError, match="horovod_timeline is true with"):
            ClusterConfig(horovod_timeline=True, **wrong)  # type: ignore[arg-type]
    monkeypatch.setattr(stack, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="horovod_timeline is true, and Horovod is not installed"):
        stack.collective_of(ClusterConfig(horovod_timeline=True))
