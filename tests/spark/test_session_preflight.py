"""What executors find before training starts, asked in a real barrier stage."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline.launch.preflight as preflight_module
from pipeline.cli import main
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.errors import ServiceError
from pipeline.launch.job import run_job
from pipeline.launch.preflight import preflight
from pipeline.launch.probe import versions
from pipeline.launch.resources import Resources
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset
from tests.spark_jobs import ends_all_jobs


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


@pytest.fixture
def doctor(spark: Any, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """`pipeline doctor --cluster`; logging and signal handlers are as they were afterwards."""
    loggers = [logging.getLogger(name) for name in ("pipeline", "py4j")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    on_term = signal.getsignal(signal.SIGTERM)
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        f"""
        source: {{inputs: {{table: {{path: {tmp_path}/table.csv, format: csv}}}}, id: [id]}}
        features: {{x: {{type: numeric}}}}
        dataset: {{url: {tmp_path}/dataset}}
        training: {{run_url: {tmp_path}/run}}
        cluster: {{master: "local[2]"}}
        """
    )
    yield lambda *more: main(["doctor", "--cluster", str(config), *more])
    signal.signal(signal.SIGTERM, on_term)
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_doctor_shows_the_executors_of_a_cluster(doctor: Callable[..., int], capsys: Any) -> None:
    assert doctor() == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("slot  host"))
    assert [line.split()[0] for line in lines[header + 1 :]] == ["0", "1", "driver:"]
    assert all(line.endswith("as on the driver") for line in lines[header + 1 : header + 3])
    assert doctor("--json", "--set", "cluster.num_proc=1") == 0
    (executor,) = json.loads(capsys.readouterr().out)["executors"]
    assert executor["versions"] == versions()


def test_doctor_says_what_is_wrong_with_executors(
    doctor: Callable[..., int], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "versions", lambda: {**versions(), "torch": "9.9"})
    assert doctor() == 69
    captured = capsys.readouterr()
    assert "slot  host" in captured.out
    assert "expected 9.9 as on the driver; install the same there" in captured.err
    assert doctor("--set", "cluster.num_proc=3") == 78
    assert "cluster.num_proc is 3; expected at most 2" in capsys.readouterr().err


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
    assert ends_all_jobs(spark)
