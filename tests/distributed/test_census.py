"""Two real ranks in a Spark barrier stage count their rows: each one comes once an epoch, in equal steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark import cloudpickle

from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.launch import launch_training
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset
from tests.stacks import needs_horovod, needs_petastorm

pytestmark = pytest.mark.distributed

BATCH = 48
DOORS = [pytest.param("horovod", "petastorm", marks=[needs_horovod, needs_petastorm]), ("torch", "pyarrow")]


@pytest.fixture(autouse=True)
def bodies_travel_by_value() -> Iterator[None]:
    """Workers cannot import test modules."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def _census(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    """For each of two epochs what each rank got: a list of steps, each a list of ids. Ranks go in step."""
    from pipeline.dataset import Dataset
    from pipeline.training.loader import Loader

    options = {"rank": collective.rank, "world_size": collective.world_size, "reader": task.reader}
    dataset = Dataset.open(task.dataset_url, task.content_id)
    loader = Loader(dataset, global_batch_size=BATCH, window_bytes=4000, with_ids=True, **options)
    epochs = []
    for _ in range(2):
        steps = []
        for batch in loader:
            rows = collective.sum(np.array([float(batch.rows)]))
            steps.append([int(rows[0]), batch.ids["id"].tolist()])
        epochs.append(collective.gather_objects(steps))
    return epochs


@pytest.mark.parametrize(("collective", "reader"), DOORS)
@pytest.mark.parametrize("rows", [1, 47, 1001])
def test_in_each_epoch_two_ranks_are_given_every_row_once_in_equal_steps(
    spark: Any, tmp_path: Path, rows: int, collective: str, reader: Any
) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows={"train": rows}, rows_per_row_group=32, rows_per_file=250)
    training = TrainingConfig(run_url=str(tmp_path / "run"))
    task = TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="linear"), training, reader=reader)
    cluster = ClusterConfig(master="local[2]", num_proc=2, collective=collective)  # type: ignore[arg-type]
    epochs: Any = launch_training(spark, task, cluster, body=_census)
    orders = []
    for first, second in epochs:
        assert len(first) == len(second) == -(-rows // BATCH)
        for (sum_seen_by_one, ids_of_one), (sum_seen_by_other, ids_of_other) in zip(first, second, strict=True):
            assert sum_seen_by_one == sum_seen_by_other == len(ids_of_one) + len(ids_of_other)
            assert 0 <= len(ids_of_one) - len(ids_of_other) <= 1
        orders.append([id_ for rank in (first, second) for _, ids in rank for id_ in ids])
        assert sorted(orders[-1]) == list(range(rows))
    assert rows < 2 or orders[0] != orders[1]
