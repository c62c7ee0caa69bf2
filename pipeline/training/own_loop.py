"""RANK. What a user's own training loop gets, so that it resumes exactly, reads every row once and loses little.

    def my_loop(context):
        model = MyNet(context.schema)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        context.attach(model, optimizer)              # rank 0's weights for all; the saved state when resumed
        for epoch in context.epochs():                # what is left of them
            for batch in context.batches():           # what is left of the epoch, this rank's share
                loss = my_loss(model(batch.inputs), batch.label)      # a SUM over the rows
                context.backward(loss, weight=batch.rows)             # the gradient of the mean over all ranks' rows
                context.step()                                        # optimizer.step(), without torch's compiler
            context.report({"loss": ...})             # chooses the best epoch by training.best_by, default the last

A step is done when the next batch is asked for: then all ranks agree on checkpoints and stops.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch

from pipeline.dataset import Dataset, DatasetSchema
from pipeline.errors import ConfigError, InterruptedRunError
from pipeline.task import Reporter, TrainingTask
from pipeline.training.batches import Batch
from pipeline.training.build import build_learner, steps_per_epoch
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.collective import Collective
from pipeline.training.loader import Loader
from pipeline.training.objectives import is_better
from pipeline.training.optimizers import optimizer_step, without_compiler
from pipeline.training.precision import take_device
from pipeline.training.progress import Best, Progress
from pipeline.training.randomness import seed_all
from pipeline.training.saving import checkpoint_writer, resume, snapshot
from pipeline.training.step import Learner, Outcome


class TrainingContext:
    """The ranks, the data and the checkpoints of a training whose loop is the user's.

    Attributes:
        rank: of ``world_size`` ranks.
        device: where this rank computes.
        collective: sums, gathers and broadcasts between the ranks.
        progress: how far the run has come.
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
        self.progress = Progress()
        self._reporter, self._stop = reporter, stop
        self._learner: Learner | None = None
        self._writer: CheckpointWriter | None = None
        self._saved = time.monotonic()
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

    def attach(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Say what learns: weights become those of rank 0, or of the checkpoint that the run goes on from."""
        learner = build_learner(self.task, self.dataset, self.collective, model, optimizer)
        self._exit.enter_context(contextlib.closing(learner.gradients))
        self._writer = self._exit.enter_context(checkpoint_writer(self.task, self.collective))
        self._learner = learner
        self.progress = resume(self.task, learner, self._reporter)

    def epochs(self) -> Iterator[int]:
        """Numbers of the epochs that are left, from 0; each is saved when the next one is asked for."""
        self._attached()
        while self.progress.epoch < self.task.training.epochs:
            epoch = self.progress.epoch
            yield epoch
            if self.progress.best is None or self.progress.validated_step != self.progress.step:
                self.progress.best = Best(epoch + 1, self.progress.step, 0.0, {})
            self.progress.count_epoch()
            self._save()

    def batches(self) -> Iterator[Batch]:
        """This rank's batches that are left of the epoch; random numbers depend on seed, step and rank only."""
        config, progress = self.task.training, self.progress
        loader = self.loader("train", seed=config.seed, last_batch=config.last_batch)
        loader.set_epoch(progress.epoch, [tuple(deal) for deal in progress.deals])
        with contextlib.closing(cast("Generator[Batch, None, None]", iter(loader))) as batches:
            for batch in batches:
                seed_all(config.seed, progress.step, self.rank)
                self._attached().gradients.zero()
                yield batch
                self._step_is_done(batch.rows)

    def loader(self, split: str, **options: object) -> Loader:
        """This rank's loader of a split, see `pipeline.training.loader.Loader`."""
        given: dict[str, Any] = {"rank": self.rank, "world_size": self.world_size, "reader": self.task.reader}
        given |= {"global_batch_size": self.task.training.global_batch_size, **self.task.training.loader.model_dump()}
        return Loader(self.dataset, split, **{**given, **options})

    def backward(self, loss: torch.Tensor | None, weight: float) -> None:
        """Back-propagate; gradients become those of the weighted mean over the rows of all ranks.

        Args:
            loss: a SUM over this rank's rows; None if it has none.
            weight: of these rows.
        """
        gradients = self._attached().gradients
        handle = self.collective.sum_async(torch.tensor([float(weight)], dtype=torch.float64), "weight")
        gradients.arm(lambda: float(handle.wait()[0]))
        if loss is not None:
            loss.backward()
        gradients.reduce()
        gradients.scale(1.0 / max(float(handle.wait()[0]), 1e-300))

    def step(self) -> None:
        """Let the optimizer move the weights. Its own ``step()`` does too, but imports torch's compiler for nothing."""
        optimizer_step(self._attached().optimizer)

    def report(self, metrics: Mapping[str, float]) -> None:
        """Metrics of the epoch under way, the same on all ranks; the best one is kept by ``training.best_by``."""
        name, progress = self.task.training.best_by, self.progress
        if name != "auto" and name not in metrics:
            raise ConfigError(f"training.best_by is {name}; expected auto or one of {', '.join(sorted(metrics))}")
        value = float(metrics.get(name, 0.0))
        if name == "auto" or progress.best is None or is_better(name, value, progress.best.value):
            progress.best = Best(progress.epoch + 1, progress.step, value, dict(metrics))
        progress.validated_step = progress.step
        if self.rank == 0:
            self._reporter.metrics(metrics, progress.step)

    def checkpoint(self) -> None:
        """Save now; to be called on all ranks, between two steps."""
        self._save()

    def finish(self) -> None:
        """Wait until everything is on disk."""
        self._attached()
        assert self._writer is not None
        self._writer.wait()
        self.collective.barrier()

    def _attached(self) -> Learner:
        if self._learner is None:
            raise ConfigError("the loop asked for data before context.attach(model, optimizer); expected attach first")
        return self._learner

    def _step_is_done(self, rows: int) -> None:
        config, progress = self.task.training.checkpoint, self.progress
        due = self.rank == 0 and time.monotonic() - self._saved >= config.every_seconds
        total, stop, checkpoint = self.collective.sum(np.array([float(rows), self._stop(), due]))
        progress.count_step(Outcome(0.0, 0.0, int(total), False, stop > 0, checkpoint > 0), self.world_size)
        self._reporter.progress(
            epoch=progress.epoch + 1,
            step=progress.step,
            steps=self._attached().total_steps,
            loss=math.nan,
            rows_per_second=0.0,
        )
        if stop:
            self._save()
            self.finish()
            raise InterruptedRunError(
                f"training was stopped after step {progress.step}; expected to run to the end; "
                "run the same command again to resume from there"
            )
        every = config.every_steps
        inside = progress.steps_in_epoch < steps_per_epoch(self.task, self.dataset)
        if inside and (checkpoint or (every is not None and progress.step % every == 0)):
            self._save()

    def _save(self) -> None:
        assert self._writer is not None
        self._writer.save(snapshot(self.task, self._attached(), self.progress))
        self._saved = time.monotonic()
