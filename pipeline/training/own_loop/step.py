"""RANK. One optimizer step of a user's own loop: its backward passes, the sum over ranks, the move of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from pipeline.errors import ConfigError
from pipeline.training.step import Learner, Outcome, Wishes, clip_factor, move_weights, share_buffers

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
        self._rows, self._weight, self._loss = 0, 0.0, 0.0
        self._totals: list[float] = []

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
        totals = torch.tensor(self._contribution(), dtype=torch.float64)
        handle = learner.collective.sum_async(totals, "step")
        learner.gradients.arm(lambda: float(handle.wait()[0]))
        if loss is not None:
            loss.backward()
        learner.gradients.reduce()
        learner.gradients.restore()
        self._totals = handle.wait().tolist()
        learner.gradients.scale(1.0 / max(self._totals[0], 1e-300))

    def move(self, step: int) -> Outcome:
        """Move the weights along the mean gradient, if it is finite."""
        if self.state != "summed":
            raise ConfigError(
                "context.step() was called without a last context.backward() before it; expected both once a batch"
            )
        learner = self.learner
        norm = learner.gradients.norm()
        if finite := math.isfinite(norm):
            if (factor := clip_factor(learner.config.clip_norm, norm)) != 1.0:
                learner.gradients.scale(factor)
            move_weights(learner, step)
        else:
            learner.gradients.compression.reset()
        share_buffers(learner)
        learner.optimizer._opt_called = True  # type: ignore[attr-defined]  # torch's schedulers look whether it stepped
        return self._outcome(skipped=not finite)

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
        self._rows = 0
        self._totals = self.learner.collective.sum(np.array(self._contribution())).tolist()
        return self._outcome(skipped=False)

    def _contribution(self) -> list[float]:
        """What ranks add up in a step."""
        wishes = self._wishes()
        return [self._weight, self._loss, float(self._rows), float(wishes.stop), float(wishes.checkpoint)]

    def _outcome(self, skipped: bool) -> Outcome:
        self.state = "done"
        weight, loss, rows, stop, checkpoint = self._totals
        return Outcome(loss, weight, int(rows), skipped, stop > 0, checkpoint > 0)
