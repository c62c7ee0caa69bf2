"""RANK. The best validation so far: what makes it, and what takes its place if its checkpoint is lost."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.errors import StorageError
from pipeline.training.checkpoint import Checkpoint, open_checkpoint, published_steps, set_aside, step_url
from pipeline.training.objectives import choose_metric, is_better
from pipeline.training.progress import Progress, Validation
from pipeline.training.step import Learner

Better = Callable[[Validation, Validation], bool]


def compare_with_best(progress: Progress, learner: Learner, metrics: dict[str, float]) -> None:
    """The first validation, and every one that is better, becomes the best; without any the last epoch does."""
    config, best = learner.config, progress.best
    name = choose_metric(config.best_by, learner.objective, metrics) if metrics else None
    value = 0.0 if name is None else metrics[name]
    progress.validated = Validation(progress.epoch + 1, progress.step, value, metrics)
    if best is None or better_of(learner, with_own_loop=False)(progress.validated, best):
        progress.best = progress.validated
        progress.without_better = 0
        return
    progress.without_better += 1
    if config.schedule.name == "plateau" and progress.without_better % config.schedule.patience == 0:
        progress.rate_drops += 1
        learner.rate_drops = progress.rate_drops
    if config.early_stopping is not None and progress.without_better >= config.early_stopping:
        progress.stopped_early = True


def better_of(learner: Learner, with_own_loop: bool) -> Better:
    """How validations compare; a loop from code that names no metric wants the last one."""
    config, objective = learner.config, learner.objective
    name = objective.best_by if config.best_by == "auto" else config.best_by

    def better(one: Validation, earlier: Validation) -> bool:
        if name not in one.metrics or (with_own_loop and config.best_by == "auto"):
            return True
        return is_better(name, one.metrics[name], earlier.metrics.get(name), config.best_is, objective.labels)

    return better


def kept_best(
    run_url: str, progress: Progress, newest: Checkpoint, better: Better, tell: Callable[[str], None]
) -> Validation | None:
    """The best validation, whose checkpoint is intact to the last byte: the one of the progress, if it is.

    Else the best one among the checkpoints that are left and were saved at a validation; else the newest one, which
    any further validation beats. For one process to call, since a corrupt checkpoint is set aside.

    Args:
        run_url: the run folder.
        progress: as ``newest`` holds it.
        newest: the checkpoint that training goes on from, which has been verified.
        better: whether a validation beats an earlier one.
        tell: hears what is amiss.
    """
    best = progress.best
    if best is None or best.step == newest.step:
        return best
    try:
        open_checkpoint(step_url(run_url, best.step)).verify(tell)
        return best
    except StorageError as error:
        set_aside(run_url, best.step)
        epoch = progress.epoch + (progress.steps_in_epoch > 0)
        found = _best_of_the_others(run_url, better, tell) or Validation(epoch, newest.step, math.nan, {})
        tell(f"the best checkpoint, step-{best.step}, is not usable; step-{found.step} takes its place: {error}")
        return found


def _best_of_the_others(run_url: str, better: Better, tell: Callable[[str], None]) -> Validation | None:
    best: Validation | None = None
    for step in published_steps(run_url):
        try:
            checkpoint = open_checkpoint(step_url(run_url, step))
            checkpoint.verify(tell)
            validated = Progress.from_json(checkpoint.state()["progress"]).validated
        except StorageError:
            continue
        if validated is not None and validated.step == step and (best is None or better(validated, best)):
            best = validated
    return best
