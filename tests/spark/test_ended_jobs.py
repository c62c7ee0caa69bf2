"""Jobs end with the block that began them: nothing writes any more when what they wrote is removed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.preparation.jobs import _active_tasks, ended_jobs

_LONG_SECONDS = 60.0


def test_no_task_outlives_the_block_when_another_fails(spark, tmp_path: Path) -> None:
    context, mark, groups = spark.sparkContext, str(tmp_path / "mark"), []
    began = time.monotonic()

    def work(number: int) -> None:
        if number == 0:
            Path(mark).touch()
            time.sleep(_LONG_SECONDS)
        while not Path(mark).exists():
            time.sleep(0.01)
        raise ValueError("bad row")

    with pytest.raises(Exception, match="bad row"), ended_jobs(context, "test"):  # noqa: PT012
        groups.append(context.getLocalProperty("spark.jobGroup.id"))
        context.parallelize([0, 1], 2).foreach(work)
    assert _active_tasks(context, groups[0]) == 0
    assert time.monotonic() - began < _LONG_SECONDS


def test_the_group_that_a_notebook_gave_its_jobs_comes_back(spark) -> None:
    context = spark.sparkContext
    context.setJobGroup("cell 7", "of a notebook")
    try:
        with ended_jobs(context, "test"):
            assert context.getLocalProperty("spark.jobGroup.id").startswith("test-")
        assert context.getLocalProperty("spark.jobGroup.id") == "cell 7"
        assert context.getLocalProperty("spark.job.description") == "of a notebook"
    finally:
        for name in ("spark.jobGroup.id", "spark.job.description"):
            context.setLocalProperty(name, None)
