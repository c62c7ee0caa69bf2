"""One rank is told to end while all of them validate: the others learn it with the sum, and all save the same step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InterruptedRunError
from pipeline.training import loop
from pipeline.training.loop import Rank, validate
from tests.thread_ranks import ThreadCollective, on_thread_ranks

BATCHES = 5


class _Batches:
    """Stands for a loader of so many batches, each a number."""

    def set_epoch(self, epoch: int) -> None: ...

    def __iter__(self) -> Any:
        yield from range(BATCHES)


def _rank(collective: ThreadCollective, told_after: int | None, saved: list[str]) -> tuple[Rank, list[int]]:
    seen: list[int] = []
    objective = SimpleNamespace(metrics=lambda sums: {"total": float(sums[0])})
    model = SimpleNamespace(eval=lambda: None)
    learner = SimpleNamespace(model=model, average=None, collective=collective, objective=objective, seen=seen)
    rank = Rank(
        learner=learner,  # type: ignore[arg-type]
        progress=SimpleNamespace(step=7, epoch_loss=0.0, epoch_weight=0.0, epoch=0),  # type: ignore[arg-type]
        train=None,  # type: ignore[arg-type]
        validation=_Batches(),  # type: ignore[arg-type]
        steps_per_epoch=BATCHES,
        save=lambda: saved.append("saved"),
        finish_saving=lambda: saved.append("finished"),
        reporter=SimpleNamespace(),  # type: ignore[arg-type]
        stop=lambda: len(seen) == told_after,
    )
    return rank, seen


@pytest.fixture(autouse=True)
def plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch adds its number; nothing is reported."""

    def step(learner: Any, batch: int) -> np.ndarray:
        learner.seen.append(batch)
        return np.array([1.0, 2.0, float(batch)])

    monkeypatch.setattr(loop, "validation_step", step)
    monkeypatch.setattr(loop, "_report_progress", lambda *_: None)


def test_a_rank_that_is_told_stops_at_once_and_all_save_and_end() -> None:
    def body(collective: ThreadCollective) -> tuple[int, list[str]]:
        saved: list[str] = []
        rank, seen = _rank(collective, told_after=2 if collective.rank == 1 else None, saved=saved)
        with pytest.raises(InterruptedRunError, match="training was stopped after step 7"):
            validate(rank)
        return len(seen), saved

    assert on_thread_ranks(2, body) == [(BATCHES, ["saved", "finished"]), (2, ["saved", "finished"])]


def test_a_validation_that_nobody_stops_gives_the_metrics_of_all_ranks() -> None:
    def body(collective: ThreadCollective) -> dict[str, float]:
        return validate(_rank(collective, told_after=None, saved=[])[0])

    assert on_thread_ranks(2, body) == [{"loss": 0.5, "total": 20.0}] * 2
