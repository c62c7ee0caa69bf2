"""What executors find before training starts, asked in a real barrier stage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.errors import ServiceError
from pipeline.launch.job import run_job
from pipeline.launch.preflight import preflight
from pipeline.launch.probe import versions
from pipeline.launch.resources import Resources
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset


@pytest.fixture
def task(tmp_path: Path) -> TrainingTask:
    dataset = tiny_dataset(str(tmp_path / "data"), 100)
    training = TrainingConfig(run_url=str(tmp_path / "run"))
    return TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="linear"), training)


def test_equal_executors_that_see_everything_pass_and_no_marker_is_left(
    spark: Any, task: TrainingTask, tmp_path: Path
) -> None:
    findings = preflight(spark, task, Resources(2, 1), 60)
    assert [finding.versions for finding in findings] == [versions()] * 2
    assert all(not finding.troubles for finding in findings)
    assert not list((tmp_path / "run").iterdir())


def test_a_dataset_that_executors_cannot_read_is_named(spark: Any, task: TrainingTask, tmp_path: Path) -> None:
    part = next(path for path in (tmp_path / "data").rglob("part-00000.parquet") if path.parent.name == "train")
    part.write_bytes(b"XXXX" + part.read_bytes()[4:])
    with pytest.raises(ServiceError, match=r"finds another content in .*part-00000.parquet"):
        preflight(spark, task, Resources(2, 1), 60)


def test_a_spark_job_that_takes_too_long_is_cancelled(spark: Any) -> None:
    started = time.monotonic()
    with pytest.raises(ServiceError, match="waiting has taken 3 s"):
        run_job(
            spark, "waiting", lambda: spark.sparkContext.parallelize([0], 1).map(lambda _: time.sleep(60)).collect(), 3
        )
    assert time.monotonic() - started < 20
    assert spark.sparkContext.statusTracker().getActiveJobsIds() == []
