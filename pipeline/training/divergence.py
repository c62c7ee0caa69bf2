"""RANK. Steps that are skipped because loss or gradient is not finite: said, counted, and when they are the end.

All decide by numbers that ranks share, so that all of them end alike; rank 0 tells the driver.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.config.training import TrainingConfig
from pipeline.errors import RankFailedError
from pipeline.task import Reporter
from pipeline.training.progress import Progress
from pipeline.training.step import Outcome

_ADVICE = (
    "lower the optimizer's learning_rate, set training.clip_norm, or look for huge values among the features and "
    "for labels that the loss is not defined for"
)


def judge_step(progress: Progress, outcome: Outcome, bound: int, reporter: Reporter | None) -> None:
    """After a step, which is counted already: the first skipped one of an epoch is said.

    Args:
        progress: the same on all ranks.
        outcome: of the step.
        bound: ``training.max_skipped_steps``.
        reporter: of rank 0; none on the others.

    Raises:
        RankFailedError: too many were skipped in a row.
    """
    if not outcome.skipped:
        return
    if reporter is not None and progress.epoch_skipped == 1:
        reporter.event(f"step {progress.step} is skipped: its loss or gradient is not finite")
    if progress.skipped_in_a_row > bound:
        raise RankFailedError(
            f"loss or gradient of step {progress.step} is not finite, nor that of any step since the last one that "
            f"moved the weights: {progress.skipped_in_a_row} in a row; expected at most {bound} "
            f"(training.max_skipped_steps); {_ADVICE}"
        )


def judge_epoch(progress: Progress, config: TrainingConfig, reporter: Reporter | None) -> None:
    """At the end of an epoch: how many of its steps were skipped.

    Raises:
        RankFailedError: all that could have moved the weights, but for fp16, whose loss scale may still be falling.
    """
    skipped, steps, epoch = progress.epoch_skipped, progress.steps_in_epoch, progress.epoch + 1
    if reporter is not None and skipped > 1:
        reporter.event(f"{skipped} of {steps} steps of epoch {epoch} were skipped: loss or gradient was not finite")
    if skipped and not progress.epoch_weight and config.precision != "fp16":
        raise RankFailedError(
            f"no step of epoch {epoch} has moved the weights: loss or gradient was not finite in {skipped} of {steps}; "
            f"expected most of them to; {_ADVICE}"
        )


def judge_validation(metrics: Mapping[str, float], progress: Progress, reporter: Reporter | None) -> None:
    """After a validation: a loss that is no number is said; later ones may be better."""
    loss = metrics.get("loss", 0.0)
    if reporter is not None and not math.isfinite(loss):
        reporter.event(f"the loss on the validation split is {loss} after step {progress.step}")


def judge_training(progress: Progress) -> None:
    """At the end of training: whether there is a best epoch to deliver.

    A metric may be NaN for a good reason, such as the ROC AUC of one class, but not together with the loss.

    Raises:
        RankFailedError: no step has moved the weights, or all validations gave no number to choose by.
    """
    if progress.skipped and not progress.rows:
        raise RankFailedError(f"all {progress.skipped} steps were skipped; expected weights that move; {_ADVICE}")
    best = progress.best
    loss = 0.0 if best is None else best.metrics.get("loss", 0.0)
    if best is not None and not math.isfinite(best.value) and not math.isfinite(loss):
        raise RankFailedError(
            f"the loss on the validation split is {loss}, after epoch {best.epoch} and after every other; expected a "
            f"number that can choose the best one; look for validation rows that the loss is not defined for; {_ADVICE}"
        )
