"""RANK. The object that a user's own loop is given; see the package for how a loop uses it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, cast

import torch

from pipeline.dataset import Dataset, DatasetSchema
from pipeline.errors import ConfigError
from pipeline.task import Reporter, TrainingTask
from pipeline.training.batches import Batch
from pipeline.training.build import build_learner, seeded_model, steps_per_epoch
from pipeline.training.collective import Collective
from pipeline.training.divergence import judge_epoch, judge_step, judge_training
from pipeline.training.loader import Loader
from pipeline.training.objectives import is_better
from pipeline.training.optimizers import refuse_more_than_gradients, without_compiler
from pipeline.training.own_loop.loader import OwnLoader
from pipeline.training.own_loop.saves import OwnSaves
from pipeline.training.own_loop.step import OwnStep
from pipeline.training.precision import take_device, weight_dtype
from pipeline.training.progress import Progress, Validation
from pipeline.training.randomness import seed_all
from pipeline.training.saving import checkpoint_writer, resume
from pipeline.training.states import Stateful, states_of
from pipeline.training.step import Outcome

_PREPARING_SECONDS = 30.0


class TrainingContext:
    """The ranks, the data and the checkpoints of a training whose loop is the user's.

    Attributes:
        rank: of ``world_size`` ranks.
        device: where this rank computes, and where its batches are.
        collective: sums, gathers and broadcasts between the ranks.
        progress: how far the run has come.
        steps_per_epoch: optimizer steps; ``total_steps`` those of the whole run.
    """

    def __init__(
        self,
        task: TrainingTask,
        dataset: Dataset,
        collective: Collective,
        reporter: Reporter,
        stop: Callable[[], bool],
    ) -> None:
        self.task, self.dataset, self.collective = task, dataset, collective
        self.rank, self.world_size = collective.rank, collective.world_size
        self.device = take_device(task.training.device, collective.local_rank)
        self.steps_per_epoch = steps_per_epoch(task, dataset)
        self.total_steps = self.steps_per_epoch * task.training.epochs
        self.progress = Progress()
        self._reporter, self._stop = reporter, stop
        self._model: torch.nn.Module | None = None
        self._saves: OwnSaves
        self._step: OwnStep | None = None
        self._train: Loader | None = None
        self._in_epoch = False
        self._began = self._said = time.monotonic()
        self._rows, self._loss = 0, math.nan
        self._exit = contextlib.ExitStack()
        seed_all(task.training.seed)

    def __enter__(self) -> TrainingContext:
        self._exit.enter_context(without_compiler())
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def schema(self) -> DatasetSchema:
        """Names, dtypes and roles of the columns."""
        return self.dataset.schema

    def model(self) -> torch.nn.Module:
        """The model of ``model=`` or of the configuration, the one that was tried before the launch and is exported.

        It is on `device`, its floating-point type that of ``training.precision``, its random start that of
        ``training.seed``. Asked again, it is the same one.
        """
        if self._model is None:
            self._model = seeded_model(self.task, self.dataset).to(self.device)
        return self._model

    def attach(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **others: Stateful) -> None:
        """Say what learns: weights become those of rank 0, or of the checkpoint that the run goes on from.

        Args:
            model: what `model` gave.
            optimizer: of its parameters.
            others: what else has a state that a resumed run needs, such as schedulers and averages of weights. It
                must be alike on all ranks, and hold numbers, texts, lists, dicts and tensors only.

        Raises:
            ConfigError: another model, an optimizer that needs a closure, or a state that cannot be saved.
        """
        if self._step is not None or model is not self._model:
            raise ConfigError(
                "context.attach() got another model than context.model() gave, or was called twice; expected that one, "
                "once: it is what is exported; describe yours by pipeline.train(model=...)"
            )
        refuse_more_than_gradients(optimizer)
        states_of(others)
        learner = build_learner(self.task, self.dataset, self.collective, model, optimizer)
        learner.others = others
        self._exit.enter_context(contextlib.closing(learner.gradients))
        writer = self._exit.enter_context(checkpoint_writer(self.task, self.collective, self._reporter))
        self.progress = resume(self.task, learner, self._reporter)
        self._saves = OwnSaves(self.task, learner, self.progress, writer, self._stop)
        self._step = self._exit.enter_context(contextlib.closing(OwnStep(learner, self._saves.wishes)))
        self._began = time.monotonic()

    def epochs(self) -> Iterator[int]:
        """Numbers of the epochs that are left, from 0; each is saved when the next one is asked for, or at the end."""
        self._attached()
        while self.progress.epoch < self.task.training.epochs and not self.progress.stopped_early:
            self._in_epoch = True
            yield self.progress.epoch
            self._end_epoch()
            if self._saves.stopped:
                self._saves.interrupt()

    def batches(self) -> Iterator[Batch]:
        """This rank's batches that are left of the epoch; random numbers depend on seed, step and rank only.

        A batch without `backward` is left out, if all ranks do so.
        """
        step, config, progress = self._attached(), self.task.training, self.progress
        if not self._in_epoch:
            raise ConfigError("context.batches() was asked outside an epoch; expected it within context.epochs()")
        if self._train is None:
            self._train = self.loader("train", seed=config.seed, last_batch=config.last_batch)
        self._train.set_epoch(progress.epoch, [tuple(deal) for deal in progress.deals])
        with contextlib.closing(cast("Generator[Batch, None, None]", iter(self._train))) as batches:
            for batch in batches:
                seed_all(config.seed, progress.step, self.rank)
                step.begin(batch.rows)
                yield batch
                self._end_batch(step)

    def loader(self, split: str, **options: object) -> Loader:
        """This rank's loader of a split, see `pipeline.training.loader.Loader`; only train is shuffled by default."""
        config = self.task.training
        given: dict[str, Any] = {"rank": self.rank, "world_size": self.world_size, "reader": self.task.reader}
        given |= {"global_batch_size": config.global_batch_size, **config.loader.model_dump()}
        given |= {"device": self.device, "shuffle": split == "train"}
        return OwnLoader(self.alive, weight_dtype(config), self.dataset, split, **{**given, **options})

    def backward(self, loss: torch.Tensor | None, weight: float, last: bool = True) -> None:
        """Back-propagate; after the last time, gradients are those of the weighted mean over the rows of all ranks.

        Args:
            loss: a SUM over this rank's rows, or a part of them; None if it has none.
            weight: of these rows: their number, or the sum of ``batch.weight`` where rows are weighted.
            last: of this batch; to accumulate, every rank says so of exactly one.

        Raises:
            ConfigError: the batch has had its last one.
        """
        self._attached().backward(loss, weight, last)

    def step(self) -> None:
        """Move the weights, once a batch: the optimizer, and what ``training`` says of clipping, l1 and ema_decay.

        A step whose loss or gradient is not finite is skipped. Buffers, as batch norm has them, become their mean over
        ranks.
        """
        self._count(self._attached().move(self.progress.step))

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the average of its weights, which is what is exported, if there is an ``ema_decay``."""
        self._attached()
        return self._saves.averaged()

    def report(self, metrics: Mapping[str, float]) -> None:
        """Metrics of the weights as they are; the best are kept by ``training.best_by``.

        To be called on all ranks: those of rank 0 count.

        Raises:
            ConfigError: the metric of ``training.best_by`` is not among them.
        """
        self._attached()
        config, progress = self.task.training, self.progress
        if (name := config.best_by) != "auto" and name not in metrics:
            raise ConfigError(f"training.best_by is {name}; expected auto or one of {', '.join(sorted(metrics))}")
        values = self.collective.broadcast_object({each: float(value) for each, value in metrics.items()})
        if self._teller is not None:
            self._teller.metrics(values, progress.step)
        value = values.get(name, 0.0)
        progress.validated = Validation(progress.epoch + self._in_epoch, progress.step, value, values)
        than = None if progress.best is None else progress.best.metrics.get(name)
        if name == "auto" or is_better(name, value, than, config.best_is, self.schema.labels):
            progress.best = progress.validated
            if name != "auto" and self._steps_are_left():
                self._saves.save()

    def checkpoint(self) -> None:
        """Save now; to be called on all ranks, before `backward` or after all that belongs to the step."""
        if self._attached().under_way:
            raise ConfigError(
                "context.checkpoint() was called inside a step; expected it before backward or after step"
            )
        self._saves.save()

    def alive(self) -> None:
        """Tell the driver that the loop is at work, as it believes for ``cluster.deadlines.step``; costs nothing."""
        if self._step is not None:
            self._tell_progress()
        elif time.monotonic() - self._said > _PREPARING_SECONDS:  # a step would void what an earlier attempt reported
            self._said = time.monotonic()
            self._reporter.event(f"rank {self.rank}: the loop from code is at work, and has attached no model yet")

    def finish(self) -> None:
        """Called when the loop returns: save an epoch that it broke out of, and wait until everything is on disk."""
        self._attached()
        if self._in_epoch:
            self.progress.stopped_early = True
            self._end_epoch()
        if self.progress.best is None:
            raise ConfigError("the loop returned without an epoch; expected `for epoch in context.epochs()` in it")
        self._saves.wait()
        judge_training(self.progress)

    def _attached(self) -> OwnStep:
        if self._step is None:
            raise ConfigError(
                "the loop has not called context.attach(model, optimizer); expected it before anything is trained"
            )
        return self._step

    @property
    def _teller(self) -> Reporter | None:
        """The reporter where this is rank 0: what all ranks know is told once."""
        return self._reporter if self.rank == 0 else None

    def _steps_are_left(self) -> bool:
        """Of the epoch under way, whose end saves anyway."""
        return self._in_epoch and self.progress.steps_in_epoch < self.steps_per_epoch

    def _count(self, outcome: Outcome) -> None:
        """A step is done, or left out, on all ranks."""
        self.progress.count_step(outcome, self.world_size)
        judge_step(self.progress, outcome, self.task.training.max_skipped_steps, self._teller)
        self._saves.agreed(outcome)
        self._rows += outcome.rows
        self._loss = outcome.loss / outcome.weight if outcome.weight else self._loss
        self._tell_progress()

    def _end_batch(self, step: OwnStep) -> None:
        """Before the next batch is given: what all ranks have agreed on."""
        if (left_out := step.end()) is not None:
            self._count(left_out)
        if self._saves.stopped:
            self._saves.save()
            self._saves.interrupt()
        if self._saves.due and self._steps_are_left():
            self._saves.save()

    def _end_epoch(self) -> None:
        """Where nothing was reported that could choose, the last weights are the best."""
        progress, name = self.progress, self.task.training.best_by
        judge_epoch(progress, self.task.training, self._teller)
        best, validated = progress.best, progress.validated
        unmeasured = validated is None or validated.step != progress.step
        if best is None or (unmeasured if name == "auto" else name not in best.metrics):
            progress.best = Validation(progress.epoch + 1, progress.step, 0.0, {})
        progress.count_epoch()
        self._in_epoch = False
        self._attached().state = "outside"
        self._saves.save()

    def _tell_progress(self) -> None:
        self._reporter.progress(
            epoch=min(self.progress.epoch + 1, self.task.training.epochs),
            step=self.progress.step,
            steps=self.total_steps,
            loss=self._loss,
            rows_per_second=self._rows / max(time.monotonic() - self._began, 1e-9),
        )
