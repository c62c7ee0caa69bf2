"""RANK. What a rank does from the task it was given to the result it hands back."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import torch

from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.models import build_model
from pipeline.task import Reporter, TrainingResult, TrainingTask
from pipeline.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    Snapshot,
    differing_keys,
    latest_good,
    open_checkpoint,
    step_url,
    sweep,
)
from pipeline.training.collective import Collective
from pipeline.training.compression import build_compression
from pipeline.training.gradients import Gradients
from pipeline.training.loader import Loader
from pipeline.training.loop import Clock, Rank, run_epochs
from pipeline.training.objectives import build_objective
from pipeline.training.optimizers import (
    MovingAverage,
    build_optimizer,
    load_optimizer_state,
    optimizer_state,
)
from pipeline.training.progress import Progress
from pipeline.training.randomness import load_random_states, random_states, seed_all, torch_left_as_found
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
        learner = build_learner(task, dataset, collective)
        progress = resume(task, learner, reporter)
        with contextlib.closing(learner.gradients), _checkpoint_writer(task, collective) as writer:
            run_epochs(_rank(task, dataset, learner, progress, writer, reporter, stop))
        return _result(task, dataset, progress)


def build_learner(task: TrainingTask, dataset: Dataset, collective: Collective) -> Learner:
    """Model, loss and optimizer, alike on all ranks."""
    config = task.training
    seed_all(config.seed)
    model = build_model(task.model, dataset.schema, task.user_code)
    model = model.to(torch.float64 if config.precision == "float64" else torch.float32)
    collective.broadcast_([*(p.detach() for p in model.parameters()), *model.buffers()])
    return Learner(
        model=model,
        objective=build_objective(dataset.schema, task.user_code.loss),
        optimizer=build_optimizer(config.optimizer, model.parameters(), task.user_code.optimizer),
        gradients=Gradients(
            model.parameters(),
            build_compression(config.compression, collective, config.compression_rank),
            config.bucket_bytes,
        ),
        average=MovingAverage(model, config.ema_decay) if config.ema_decay else None,
        collective=collective,
        config=config,
        total_steps=config.epochs * steps_per_epoch(task, dataset),
    )


def steps_per_epoch(task: TrainingTask, dataset: Dataset) -> int:
    """Steps of one epoch, whatever the number of ranks."""
    rows, batch = dataset.manifest.rows("train"), task.training.global_batch_size
    steps = rows // batch if task.training.last_batch == "drop" else -(-rows // batch)
    if not steps:
        raise DataError(
            f"the train split of {dataset.url} has {rows} rows, which make no step of "
            f"training.global_batch_size {batch}; expected at least one; lower it, or set last_batch to keep"
        )
    return steps


def _checkpoint_writer(task: TrainingTask, collective: Collective) -> CheckpointWriter:
    attempt = collective.broadcast_object(uuid.uuid4().hex)
    config = task.training
    return CheckpointWriter(config.run_url, collective.rank, collective.world_size, attempt, config.checkpoint.keep)


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
        clock=Clock(),
    )


def identity(task: TrainingTask) -> dict[str, Any]:
    """What must be equal for a run folder to be continued: not where it lies, nor how often it is saved."""
    return {
        "model": task.model.model_dump(mode="json"),
        "training": task.training.model_dump(mode="json", exclude={"run_url", "checkpoint"}),
        "dataset": task.content_id,
        "code": {
            field.name: None if (code := getattr(task.user_code, field.name)) is None else _name(code)
            for field in dataclasses.fields(task.user_code)
        },
    }


def _name(code: Any) -> str:
    return f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', type(code).__qualname__)}"


def snapshot(task: TrainingTask, learner: Learner, progress: Progress) -> Snapshot:
    """Copy everything out of training's way."""
    tensors, rest = optimizer_state(learner.optimizer)
    own, own_state = random_states()
    own = {f"random.{name}": value for name, value in own.items()}
    own |= {f"compression.{name}": value for name, value in learner.gradients.compression.state().items()}
    files = {"model": dict(learner.model.state_dict()), "optimizer": tensors}
    if learner.average is not None:
        files["ema"] = learner.average.weights
    first = learner.collective.rank == 0
    return Snapshot(
        step=progress.step,
        files={name: _copied(values) for name, values in files.items()} if first else {},
        state={"identity": identity(task), "progress": progress.to_json(), "optimizer": rest},
        own=_copied(own),
        own_state={"random": own_state},
        best_step=progress.best.step if progress.best else None,
    )


def _copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def resume(task: TrainingTask, learner: Learner, reporter: Reporter) -> Progress:
    """Go on from the newest intact checkpoint; rank 0 looks for it.

    Raises:
        ConfigError: the checkpoint is of another training; every differing key is named.
    """
    collective, run_url = learner.collective, task.training.run_url
    found = None
    if collective.rank == 0:
        sweep(run_url)
        checkpoint = latest_good(run_url, reporter.event)
        found = None if checkpoint is None else checkpoint.step
    found = collective.broadcast_object(found)
    if found is None:
        return Progress()
    checkpoint = open_checkpoint(step_url(run_url, found))
    state = checkpoint.state()
    _refuse_another_training(run_url, state["identity"], identity(task))
    _restore(learner, checkpoint, state, reporter)
    if collective.rank == 0:
        reporter.resumed(found)
        reporter.event(f"resumed from the checkpoint of step {found}")
    return Progress.from_json(state["progress"])


def _refuse_another_training(run_url: str, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    offences = differing_keys(saved, wanted)
    if offences:
        advice = f"choose another training.run_url than {run_url}, or remove that folder"
        raise ConfigError(*(f"{offence}; {advice}" for offence in offences))


def _restore(learner: Learner, checkpoint: Checkpoint, state: dict[str, Any], reporter: Reporter) -> None:
    learner.model.load_state_dict(checkpoint.tensors("model"))
    load_optimizer_state(learner.optimizer, checkpoint.tensors("optimizer"), state["optimizer"])
    if learner.average is not None:
        for name, value in checkpoint.tensors("ema").items():
            learner.average.weights[name].copy_(value)
    collective = learner.collective
    if checkpoint.world_size != collective.world_size:
        reporter.event(
            f"resuming on {collective.world_size} ranks what {checkpoint.world_size} began: "
            "what each rank kept for itself (random states, compression residuals) starts anew"
        )
        return
    own, rest = checkpoint.own(collective.rank)
    parts = {kind: _under(own, f"{kind}.") for kind in ("random", "compression")}
    load_random_states(parts["random"], rest["random"])
    learner.gradients.compression.load(parts["compression"])


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _result(task: TrainingTask, dataset: Dataset, progress: Progress) -> TrainingResult:
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
    )
