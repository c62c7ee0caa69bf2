"""DRIVER. Runs a Spark action so that Ctrl-C and a deadline end it: on the cluster too."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from pipeline.errors import ServiceError

T = TypeVar("T")
_POLL_SECONDS = 0.2
_CANCEL_SECONDS = 20.0
_CANCEL_AGAIN_SECONDS = 0.5


def run_job(spark: SparkSession, what: str, action: Callable[[], T], seconds: float) -> T:
    """The result of ``action``, which runs in a thread under a job group of its own.

    Raises:
        ServiceError: it has taken longer than ``seconds``.
    """
    context, group = spark.sparkContext, f"{what}-{uuid.uuid4().hex[:12]}"
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            context.setJobGroup(group, what, interruptOnCancel=True)
            outcome.append(action())
        except BaseException as error:
            failure.append(error)

    thread = InheritableThread(target=run, name=what, daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    try:
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{what} has taken {seconds:.0f} s; expected it to be done by then; look for other jobs that hold "
                    "the cluster's slots, or raise cluster.deadlines.launch"
                )
    except BaseException:
        end_thread(thread, lambda: context.cancelJobGroup(group), _CANCEL_SECONDS)
        raise
    if failure:
        raise failure[0]
    return outcome[0]


def end_thread(thread: threading.Thread, cancel: Callable[[], None], seconds: float) -> None:
    """Cancel what a thread runs until it has ended: Spark cancels jobs that are there, not one yet to be submitted."""
    deadline = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            cancel()
        thread.join(_CANCEL_AGAIN_SECONDS)
