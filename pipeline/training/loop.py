"""RANK. The loop over epochs: train, validate, choose the best, save; and stop in time when asked to.

    for each epoch
        for each step: train_step; a checkpoint when one is due; stop when a rank was told to
        validate, compare with the best epoch, save

What is due is decided with numbers that all ranks share: they add up in the sums that each step reduces anyway.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NoReturn, cast

from pipeline.config.training import CheckpointConfig
from pipeline.errors import DataError
from pipeline.task import Reporter
from pipeline.training.batches import Batch
from pipeline.training.best import compare_with_best
from pipeline.training.divergence import judge_epoch, judge_step, judge_training, judge_validation
from pipeline.training.loader import Loader
from pipeline.training.profile import profiled
from pipeline.training.progress import Progress, interruption
from pipeline.training.step import Learner, Outcome, Wishes, train_step
from pipeline.training.timing import Clock
from pipeline.training.validation import validate

REPORT_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass
class Rank:
    """What the loop of one rank works with.

    Attributes:
        save: write a checkpoint of everything, beside training.
        finish_saving: wait until all that was saved is on disk, on all ranks.
        stop: whether this process was told to end.
        callback: the user's, after every validation.
    """

    learner: Learner
    progress: Progress
    train: Loader
    validation: Loader | None
    steps_per_epoch: int
    save: Callable[[], None]
    finish_saving: Callable[[], None]
    reporter: Reporter
    stop: Callable[[], bool]
    callback: Callable[[Progress, dict[str, float]], None] | None = None
    clock: Clock = field(default_factory=Clock)

    @property
    def teller(self) -> Reporter | None:
        """The reporter where this is rank 0: what all ranks know is told once."""
        return self.reporter if self.learner.collective.rank == 0 else None


def run_epochs(rank: Rank) -> None:
    """Train until the last epoch, or until validation no longer gets better."""
    progress, epochs = rank.progress, rank.learner.config.epochs
    while progress.epoch < epochs and not progress.stopped_early:
        _train_epoch(rank)
        if not progress.stopped_early:
            _finish_epoch(rank)
    rank.finish_saving()
    judge_training(progress)


def _train_epoch(rank: Rank) -> None:
    """The steps that are left of the epoch."""
    progress, config = rank.progress, rank.learner.config
    rank.clock.start_epoch(rank.learner)
    rank.train.set_epoch(progress.epoch, [tuple(deal) for deal in progress.deals])
    with contextlib.closing(_timed(rank.train, rank.clock)) as batches, profiled(rank.learner) as profile:
        for batch in batches:
            _validate_if_due(rank)
            if progress.stopped_early:
                break
            wishes = Wishes(stop=rank.stop(), checkpoint=_is_due(rank, config.checkpoint))
            outcome = train_step(rank.learner, batch, progress.step, wishes)
            profile()
            progress.count_step(outcome, rank.learner.collective.world_size)
            rank.clock.rows += outcome.rows
            rank.clock.steps += 1
            judge_step(progress, outcome, config.max_skipped_steps, rank.teller)
            _report_progress(rank, outcome.loss, outcome.weight)
            if outcome.stop:
                _interrupt(rank)
            _save_if_due(rank, outcome)
    rank.clock.end_training(rank.learner)


def _timed(loader: Loader, clock: Clock) -> Generator[Batch, None, None]:
    """The batches, with the time counted that they let the rank wait."""
    with contextlib.closing(cast("Generator[Batch, None, None]", iter(loader))) as batches:
        while True:
            began = time.monotonic()
            batch = next(batches, None)
            clock.waited += time.monotonic() - began
            if batch is None:
                return
            yield batch


def _save_if_due(rank: Rank, outcome: Outcome) -> None:
    """Inside an epoch; its end saves anyway."""
    every = rank.learner.config.checkpoint.every_steps
    due = outcome.checkpoint or (every is not None and rank.progress.step % every == 0)
    if due and rank.progress.steps_in_epoch < rank.steps_per_epoch:
        _save(rank)


def _is_due(rank: Rank, config: CheckpointConfig) -> bool:
    """Rank 0's clock decides, for all."""
    return rank.learner.collective.rank == 0 and time.monotonic() - rank.clock.saved >= config.every_seconds


def _save(rank: Rank) -> None:
    """What training is held up by is the copy, and a write before it that is not done yet."""
    began = time.monotonic()
    rank.save()
    rank.clock.saved = time.monotonic()
    rank.clock.saving += rank.clock.saved - began


def _report_progress(rank: Rank, loss: float, weight: float) -> None:
    """A sign of life, now and then, with the weighted mean of a sum of losses."""
    now = time.monotonic()
    if now - rank.clock.reported < REPORT_SECONDS:
        return
    rank.clock.reported = now
    rank.reporter.progress(
        epoch=min(rank.progress.epoch + 1, rank.learner.config.epochs),
        step=rank.progress.step,
        steps=rank.learner.total_steps,
        loss=loss / weight if weight else math.nan,
        rows_per_second=rank.clock.rows_per_second,
    )


def _sign_of_life(rank: Rank) -> None:
    """With the mean loss of the epoch so far."""
    _report_progress(rank, rank.progress.epoch_loss, rank.progress.epoch_weight)


def _interrupt(rank: Rank) -> NoReturn:
    rank.save()
    rank.finish_saving()
    raise interruption(rank.progress)


def _finish_epoch(rank: Rank) -> None:
    """Validate, compare with the best so far, report and save."""
    progress, clock = rank.progress, rank.clock
    judge_epoch(progress, rank.learner.config, rank.teller)
    weight = progress.epoch_weight
    if not weight and not progress.epoch_skipped:
        raise DataError(
            "the rows of the train split weigh 0 together; expected more, as they would move nothing; "
            "look at the column of label.weight"
        )
    values = {"train_loss": progress.epoch_loss / weight if weight else math.nan}
    values["skipped_steps"] = progress.epoch_skipped
    values |= _validated(rank)
    values |= clock.shares(rank.learner)
    if rank.teller is not None:
        rank.teller.timings(clock.ranks)
    progress.count_epoch()
    _report_and_save(rank, values)
    logger.debug("epoch %d of %d: %s", progress.epoch, rank.learner.config.epochs, values)


def _validate_if_due(rank: Rank) -> None:
    """Inside an epoch, before its next step: also after a resume, if the stop came between step and validation."""
    every, progress = rank.learner.config.validate_every_steps, rank.progress
    inside = 0 < progress.steps_in_epoch < rank.steps_per_epoch
    due = every is not None and inside and progress.step % every == 0
    if due and (progress.validated is None or progress.validated.step != progress.step):
        _report_and_save(rank, _validated(rank))


def _report_and_save(rank: Rank, values: dict[str, float]) -> None:
    if rank.teller is not None:
        rank.teller.metrics(values, rank.progress.step)
        if rank.progress.stopped_early:
            vain = f"{rank.progress.without_better} validations without a better one (training.early_stopping)"
            rank.teller.event(f"stopped early, after step {rank.progress.step}: {vain}")
    if rank.callback is not None:
        _sign_of_life(rank)
        rank.callback(rank.progress, values)
        _sign_of_life(rank)
    _save(rank)


def _validated(rank: Rank) -> dict[str, float]:
    """Metrics of the validation split under the names that are reported; the best one is remembered."""
    metrics = _validate(rank)
    judge_validation(metrics, rank.progress, rank.teller)
    compare_with_best(rank.progress, rank.learner, metrics)
    return {f"validation_{name}": value for name, value in metrics.items()}


def _validate(rank: Rank) -> dict[str, float]:
    """Metrics of the validation split; empty without one. A run that is stopped meanwhile does it again."""
    if rank.validation is None:
        return {}
    metrics = validate(rank.learner, rank.validation, lambda: _sign_of_life(rank), rank.stop)
    if metrics is None:
        _interrupt(rank)
    return metrics
