"""DRIVER. How far a step of preparation is, from Spark's own count of finished tasks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

Progress = Callable[[str, int, int], None]
"""Told the step's name and how many of its tasks known so far are done; (0, 0) as the step begins."""


class StepProgress:
    """Tells a listener the step that runs and, every half second, the tasks of all its stages that were seen so far."""

    def __init__(self, session: SparkSession, listener: Progress, seconds: float = 0.5) -> None:
        self._tracker = session.sparkContext.statusTracker()
        self._listener = listener
        self._seconds = seconds
        self._step = ""
        self._stages: set[int] = set()
        self._done = threading.Event()

    def step(self, name: str) -> None:
        """A step begins."""
        self._step, self._stages = name, set()
        self._listener(name, 0, 0)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs."""
        thread = threading.Thread(target=self._watch, name="preparation-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._seconds):
            # The session may be stopping; progress must never be what fails.
            with contextlib.suppress(Py4JError, OSError):
                step, stages = self._step, self._stages
                done, total = self._tasks(stages)
                if total and step == self._step:
                    self._listener(step, done, total)

    def _tasks(self, seen: set[int]) -> tuple[int, int]:
        """Of stages that are over too: a step has several, one after the other."""
        seen.update(self._tracker.getActiveStageIds())
        stages = [self._tracker.getStageInfo(stage) for stage in seen]
        known = [stage for stage in stages if stage is not None]
        return sum(stage.numCompletedTasks for stage in known), sum(stage.numTasks for stage in known)
