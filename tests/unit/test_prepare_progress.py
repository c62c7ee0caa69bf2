"""A step's progress is that of all its Spark stages, those that are over included."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from pipeline.preparation.progress import StepProgress

INFOS = {1: SimpleNamespace(numCompletedTasks=4, numTasks=4), 2: SimpleNamespace(numCompletedTasks=1, numTasks=6)}


class Tracker:
    """A step of which stage 1 runs, then stage 2, then nothing; and a stage that Spark has forgotten already."""

    def __init__(self) -> None:
        self.active = iter([[], [1], [2, 9], []])
        self.over = threading.Event()

    def getActiveStageIds(self) -> list[int]:
        found = next(self.active, None)
        if found is None:
            self.over.set()
        return found or []

    def getStageInfo(self, stage: int) -> SimpleNamespace | None:
        return INFOS.get(stage)


def test_stages_that_are_over_count_until_the_next_step() -> None:
    tracker, told = Tracker(), []
    session = SimpleNamespace(sparkContext=SimpleNamespace(statusTracker=lambda: tracker))
    steps = StepProgress(session, lambda *one: told.append(one), seconds=0.001)  # type: ignore[arg-type]
    steps.step("cleaning")
    with steps.watching():
        assert tracker.over.wait(10)
        steps.step("fitting")
    assert told[:4] == [("cleaning", 0, 0), ("cleaning", 4, 4), ("cleaning", 5, 10), ("cleaning", 5, 10)]
    assert told[-1] == ("fitting", 0, 0)
