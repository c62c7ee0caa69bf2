"""What executors find before training starts, asked in a real barrier stage."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
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


def test_equal_executors_that_see_everything_pass_show_a_table_and_leave_no_marker(
    spark: Any, task: TrainingTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    findings = preflight(spark, task, ClusterConfig(), Resources(2, 1), 900)
    assert [finding.versions for finding in findings] == [versions()] * 2
    assert all(not finding.troubles for finding in findings)
    assert all(finding.free_mib > 0 for finding in findings)
    assert not list((tmp_path / "run").iterdir())
    lines = [record.getMessage() for record in caplog.records if record.name == "pipeline.launch.preflight"]
    assert lines[0].startswith("preflight: slot  host")
    assert [line.split()[1] for line in lines[1:]] == ["0", "1", "driver:"]


def test_where_barrier_stages_cannot_be_used_executors_are_looked_at_all_the_same(
    spark: Any, task: TrainingTask, tmp_path: Path
) -> None:
    cluster = ClusterConfig(launcher="horovod")
    assert [finding.versions for finding in preflight(spark, task, cluster, Resources(2, 1), 0)] == [versions()] * 2
    part = next(path for path in (tmp_path / "data").rglob("part-00000.parquet") if path.parent.name == "train")
    part.unlink()
    with pytest.raises(ServiceError, match=r"cannot read .*part-00000.parquet"):
        preflight(spark, task, cluster, Resources(2, 1), 0)


def test_ranks_that_will_not_go_into_the_memory_that_is_free_are_warned_of(
    spark: Any, task: TrainingTask, caplog: pytest.LogCaptureFixture
) -> None:
    preflight(spark, task, ClusterConfig(), Resources(2, 1), 1 << 40)
    assert "MiB free, but its 2 ranks need about" in caplog.text


def test_a_dataset_that_executors_cannot_read_is_named(spark: Any, task: TrainingTask, tmp_path: Path) -> None:
    part = next(path for path in (tmp_path / "data").rglob("part-00000.parquet") if path.parent.name == "train")
    part.write_bytes(b"XXXX" + part.read_bytes()[4:])
    with pytest.raises(ServiceError, match=r"finds another content in .*part-00000.parquet"):
        preflight(spark, task, ClusterConfig(), Resources(2, 1), 900)


def test_a_spark_job_that_takes_too_long_is_cancelled(spark: Any) -> None:
    started = time.monotonic()
    with pytest.raises(ServiceError, match="waiting has taken 3 s"):
        run_job(
            spark, "waiting", lambda: spark.sparkContext.parallelize([0], 1).map(lambda _: time.sleep(60)).collect(), 3
        )
    assert time.monotonic() - started < 20
    assert spark.sparkContext.statusTracker().getActiveJobsIds() == []
