"""Jobs end with the block that began them: nothing writes any more when what they wrote is removed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.preparation.jobs import _active_tasks, _end, _is_at_work, ended_jobs

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


def test_a_call_that_may_yet_submit_a_job_is_waited_for(spark, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C while a query is planned: no task is active, and the next moment one is."""
    context, jvm = spark.sparkContext, spark.sparkContext._jvm
    planned, forever = jvm.java.util.concurrent.CompletableFuture(), jvm.scala.concurrent.duration.Duration.Inf()
    caller: queue.Queue[Any] = queue.Queue()

    def plan() -> None:
        caller.put(jvm.java.lang.Thread.currentThread())
        jvm.org.apache.spark.util.ThreadUtils.awaitResult(planned, forever)

    looks: list[str] = []

    def cancel(group: str) -> None:
        looks.append(group)
        if len(looks) == 3:
            planned.complete("rows")

    thread = threading.Thread(target=plan)
    thread.start()
    try:
        called = caller.get(timeout=_LONG_SECONDS)
        _until(lambda: _is_at_work(called))
        monkeypatch.setattr(context, "cancelJobGroup", cancel)
        _end(context, "group", called)
        assert planned.isDone()
        assert not _is_at_work(called)
    finally:
        planned.complete("rows")
        thread.join(_LONG_SECONDS)
    looks.clear()
    _end(context, "group", called)
    assert len(looks) == 1, "where nothing is at work, one look is enough"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
