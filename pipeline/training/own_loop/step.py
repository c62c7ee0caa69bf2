"""RANK. One optimizer step of a user's own loop: its backward passes, the sum over ranks, the move of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from pipeline.errors import ConfigError
from pipeline.training.step import Learner, Outcome, Totals, Wishes, mean_gradients, move, start_sums

State = Literal["outside", "given", "begun", "summed", "done"]


class OwnStep:
    """The step of the batch under way.

    Args:
        wishes: asked for this rank's before gradients are summed.

    Attributes:
        learner: what learns.
        state: of the batch: given to the loop, its gradients begun, summed over ranks, and used or left out.
    """

    def __init__(self, learner: Learner, wishes: Callable[[], Wishes]) -> None:
        self.state: State = "outside"
        self.learner, self._wishes = learner, wishes
        self._moving = False
        self._hook = learner.optimizer.register_step_pre_hook(self._refuse_foreign_step)
        self._rows, self._weight, self._loss = 0, 0.0, 0.0
        self._totals: Totals

    @property
    def under_way(self) -> bool:
        """Whether gradients are there that no weight has seen."""
        return self.state in ("begun", "summed")

    def begin(self, rows: int) -> None:
        """A batch of so many rows is given to the loop."""
        self.learner.gradients.zero()
        self.state, self._rows, self._weight, self._loss = "given", rows, 0.0, 0.0

    def backward(self, loss: torch.Tensor | None, weight: float, last: bool) -> None:
        """Back-propagate a part of the batch, the last one with the sum over ranks under way."""
        if self.state not in ("given", "begun"):
            raise ConfigError(
                "context.backward() was called after the last one of a batch; expected one last one for each of "
                "context.batches(); to accumulate, say last=False in all but the last"
            )
        self._weight += float(weight)
        self._loss += 0.0 if loss is None else float(loss.detach())
        self.state = "summed" if last else "begun"
        if last:
            self._last_backward(loss)
        elif loss is not None:
            loss.backward()

    def _last_backward(self, loss: torch.Tensor | None) -> None:
        learner = self.learner
        sums = start_sums(learner, self._weight, self._loss, self._rows, self._wishes())
        if loss is not None:
            loss.backward()
        self._totals = mean_gradients(learner, sums)
        learner.gradients.restore()

    def move(self, step: int) -> Outcome:
        """Move the weights along the mean gradient, if it is finite."""
        if self.state != "summed":
            raise ConfigError(
                "context.step() was called without a last context.backward() before it; expected both once a batch"
            )
        self.state = "done"
        self._moving = True
        try:
            return move(self.learner, step, self._totals)
        finally:
            self._moving = False

    def close(self) -> None:
        """Give the optimizer back."""
        self._hook.remove()

    def _refuse_foreign_step(self, *_: object) -> None:
        if not self._moving:
            raise ConfigError(
                "the loop has called step() of its optimizer, by which each rank would train apart from the others; "
                "expected context.step(), and context.backward(loss, weight) instead of loss.backward()"
            )

    def end(self) -> Outcome | None:
        """Before the next batch is given: what became of this one, if the loop left it out."""
        if self.under_way:
            missing = "last context.backward()" if self.state == "begun" else "context.step()"
            raise ConfigError(
                f"a batch ended without its {missing}; expected one for each of context.batches(), since no gradient "
                "is carried to the next; a step of more rows is training.global_batch_size"
            )
        if self.state == "done":
            return None
        self.state = "done"
        wishes = self._wishes()
        nothing = np.array([0.0, 0.0, 0.0, wishes.stop, wishes.checkpoint])
        return Totals(*self.learner.collective.sum(nothing).tolist()).outcome(skipped=False)
