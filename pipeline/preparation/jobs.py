"""DRIVER. Spark jobs that end with the block that began them, so that what they write can be removed after it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkContext

from pipeline import storage
from pipeline.errors import StorageError

_GROUP = ("spark.jobGroup.id", "spark.job.description", "spark.job.interruptOnCancel")
_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.2
_TRY_AGAIN_SECONDS = (0.5, 2.0)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def ended_jobs(context: SparkContext, what: str) -> Iterator[None]:
    """Have no job of the block outlive it.

    An error in one task, or Ctrl-C, ends the wait for a job, not its other tasks; in a notebook the whole job would go
    on, and a query that is still planned would begin. They are cancelled, and waited for.
    """
    caller = context._jvm.java.lang.Thread.currentThread()  # type: ignore[union-attr]
    before = {name: context.getLocalProperty(name) for name in _GROUP}
    group = f"{what}-{uuid.uuid4().hex[:12]}"
    context.setJobGroup(group, what, interruptOnCancel=True)
    try:
        yield
    except BaseException:
        # In a thread of its own: after Ctrl-C the connection of this one to the JVM still waits for the job.
        thread = threading.Thread(target=_end, args=(context, group, caller), name="cancel", daemon=True)
        thread.start()
        thread.join(2 * _WAIT_SECONDS)
        raise
    finally:
        for name, value in before.items():
            with contextlib.suppress(Py4JError, OSError):  # the session may be what failed
                context.setLocalProperty(name, value)  # type: ignore[arg-type]


def _end(context: SparkContext, group: str, caller: Any) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    with contextlib.suppress(Py4JError, OSError):
        while time.monotonic() < deadline:
            context.cancelJobGroup(group)
            if not _is_at_work(caller) and not _active_tasks(context, group):
                return
            time.sleep(_POLL_SECONDS)
        logger.warning("Spark is still at work %g s after its jobs were cancelled", _WAIT_SECONDS)


def _is_at_work(thread: Any) -> bool:
    """Whether a Java thread carries out a call to Spark, and may submit a job yet: while planned, a query has none."""
    return any(frame.getClassName().startswith("org.apache.spark.") for frame in thread.getStackTrace())


def _active_tasks(context: SparkContext, group: str) -> int:
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = [tracker.getStageInfo(stage) for job in jobs if job is not None for stage in job.stageIds]
    return sum(stage.numActiveTasks for stage in stages if stage is not None)


def remove_left(url: str) -> None:
    """Remove what is no longer needed; what cannot be removed costs a warning, and hides no error."""
    for pause in _TRY_AGAIN_SECONDS:
        with contextlib.suppress(StorageError):
            storage.remove(url)
            return
        time.sleep(pause)  # a task that was cancelled may have written its last file meanwhile
    try:
        storage.remove(url)
    except StorageError as error:
        logger.warning("%s stays: %s", url, error)
