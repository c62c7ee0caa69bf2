"""RANK. What a rank does from the task it was given to the result it hands back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from pipeline.dataset import Dataset
from pipeline.stack import reader_of
from pipeline.task import Reporter, TrainingResult, TrainingTask
from pipeline.training.build import build_learner, seeded_model, steps_per_epoch
from pipeline.training.checkpoint import step_url
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.collective import Collective
from pipeline.training.dry_batch import refuse_lone_row
from pipeline.training.loader import Loader
from pipeline.training.loop import Rank, run_epochs
from pipeline.training.own_loop import TrainingContext
from pipeline.training.progress import Progress
from pipeline.training.randomness import torch_left_as_found
from pipeline.training.saving import checkpoint_writer, resume, snapshot
from pipeline.training.step import Learner


def train(task: TrainingTask, collective: Collective, reporter: Reporter, stop: Callable[[], bool]) -> TrainingResult:
    """Train, or go on with the training that the run folder holds.

    Args:
        task: what to train on what.
        collective: the ranks of this training.
        reporter: tells the driver.
        stop: whether this process was told to end (SIGTERM): then a checkpoint is written.

    Raises:
        InterruptedRunError: stopped, or another rank is gone.
        ConfigError: the run folder holds another training, or the configuration does not fit the dataset.
        StorageError: a file is missing, corrupt, or cannot be written.
        DataError: the train split has no full batch.
    """
    with torch_left_as_found(task.threads):
        dataset = Dataset.open(task.dataset_url, task.content_id)
        if task.user_code.loop is not None:
            progress = _train_with_own_loop(task, dataset, collective, reporter, stop)
        else:
            progress = _train(task, dataset, collective, reporter, stop)
        return _result(task, dataset, collective, progress)


def _train(
    task: TrainingTask, dataset: Dataset, collective: Collective, reporter: Reporter, stop: Callable[[], bool]
) -> Progress:
    rows = dataset.manifest.rows("train")
    refuse_lone_row(
        lambda: seeded_model(task, dataset).float(), dataset.schema, task.training, rows, collective.world_size
    )
    learner = build_learner(task, dataset, collective)
    with contextlib.closing(learner.gradients), checkpoint_writer(task, collective, reporter) as writer:
        progress = resume(task, learner, reporter)
        run_epochs(_rank(task, dataset, learner, progress, writer, reporter, stop))
    return progress


def _train_with_own_loop(
    task: TrainingTask, dataset: Dataset, collective: Collective, reporter: Reporter, stop: Callable[[], bool]
) -> Progress:
    with TrainingContext(task, dataset, collective, reporter, stop) as context:
        assert task.user_code.loop is not None
        task.user_code.loop(context)
        context.finish()
        return context.progress


def _rank(
    task: TrainingTask,
    dataset: Dataset,
    learner: Learner,
    progress: Progress,
    writer: CheckpointWriter,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> Rank:
    config, collective = task.training, learner.collective
    common: dict[str, Any] = {
        "global_batch_size": config.global_batch_size,
        "rank": collective.rank,
        "world_size": collective.world_size,
        "reader": task.reader,
        "device": learner.device,
        **config.loader.model_dump(),
    }
    has_validation = "validation" in dataset.manifest.splits and dataset.manifest.rows("validation") > 0

    def save() -> None:
        writer.save(snapshot(task, learner, progress))

    def finish_saving() -> None:
        writer.wait()
        collective.barrier()

    return Rank(
        learner=learner,
        progress=progress,
        train=Loader(dataset, "train", seed=config.seed, last_batch=config.last_batch, **common),
        validation=Loader(dataset, "validation", shuffle=False, **common) if has_validation else None,
        steps_per_epoch=steps_per_epoch(task, dataset),
        save=save,
        finish_saving=finish_saving,
        reporter=reporter,
        stop=stop,
        callback=task.code().callback,
    )


def _result(task: TrainingTask, dataset: Dataset, collective: Collective, progress: Progress) -> TrainingResult:
    best = progress.best
    assert best is not None, "an epoch has been finished"
    rows, batch = dataset.manifest.rows("train"), task.training.global_batch_size
    return TrainingResult(
        steps=progress.step,
        epochs=progress.epoch,
        best_epoch=best.epoch,
        best_metrics=best.metrics,
        best_checkpoint=step_url(task.training.run_url, best.step),
        rows=progress.rows,
        dropped_rows=rows % batch if task.training.last_batch == "drop" else 0,
        skipped_steps=progress.skipped,
        collective=collective.name,
        shared_memory=collective.shares_memory,
        reader=reader_of(task.reader),
    )
