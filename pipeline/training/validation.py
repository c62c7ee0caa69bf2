"""RANK. Measuring the validation split: each rank its rows, in micro-batches; what they add up to is divided once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from typing import cast

import numpy as np
import torch

from pipeline.training.batches import Batch
from pipeline.training.loader import Loader
from pipeline.training.objectives import Sums
from pipeline.training.step import Learner, loss_weights, micro_batches, predicted, ready


def validate(
    learner: Learner, loader: Loader, sign_of_life: Callable[[], None], stop: Callable[[], bool]
) -> dict[str, float] | None:
    """Metrics of a split, exact over all ranks; none if a rank was told to stop, as all learn with the sums.

    Args:
        learner: its averaged weights are measured, if there are any.
        loader: of this rank's rows; there may be none.
        sign_of_life: called for each batch, since a validation may take longer than the deadline of a step.
        stop: whether this rank is told to.
    """
    learner.model.eval()
    with contextlib.nullcontext() if learner.average is None else learner.average.in_place():
        loader.set_epoch(0)
        total, told = _summed(learner, loader, sign_of_life, stop)
    collective = learner.collective
    # Rank 0 has rows in every batch; how long the sums are, and what own metrics are called, others may not know.
    size = collective.broadcast_object(None if total is None else len(total))
    sums = collective.sum(np.append(np.zeros(size) if total is None else total, told))
    if sums[-1]:
        return None
    loss = float(sums[0] / sums[1]) if sums[1] else math.nan
    metrics = learner.objective.metrics(sums[2:-1]) if collective.rank == 0 else {}
    return collective.broadcast_object({"loss": loss, **metrics})  # type: ignore[no-any-return]


def _summed(
    learner: Learner, loader: Loader, sign_of_life: Callable[[], None], stop: Callable[[], bool]
) -> tuple[Sums | None, bool]:
    """One running sum, as the vectors are long, and whether this rank was told to stop before the end."""
    total: Sums | None = None
    with contextlib.closing(cast("Generator[Batch, None, None]", iter(loader))) as batches:
        for batch in batches:
            sign_of_life()
            if batch.rows:
                sums = validation_step(learner, batch)
                total = sums if total is None else np.add(total, sums, out=total)
            if stop():
                return total, True
    return total, False


def validation_step(learner: Learner, batch: Batch) -> Sums:
    """What the rows of a batch add to the sums: weighted loss, its weight, and the sums of the objective.

    Class weights steer the loss, that of validation too; metrics are of the rows as they weigh in the data.
    """
    batch, weights = ready(learner, batch)
    parts = micro_batches(batch, weights, learner.config.micro_batch_size)
    with torch.inference_mode():
        predictions = torch.cat([predicted(learner, part) for part, _ in parts])
        in_loss = loss_weights(learner, batch.label, weights)
        loss = float(learner.objective.loss(predictions, batch.label, in_loss))
        sums = learner.objective.sums(predictions, batch.label, weights)
    return np.concatenate([[loss, float(in_loss.sum())], sums])
