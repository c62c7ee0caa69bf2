"""RANK. From the task to a learner: model, loss, optimizer and gradients, alike on all ranks."""

from __future__ import annotations

import logging

import torch

from pipeline.config.training import TrainingConfig
from pipeline.dataset import Dataset
from pipeline.errors import DataError
from pipeline.models import build_model
from pipeline.task import TrainingTask, UserCode
from pipeline.training.buffers import SharedBuffers
from pipeline.training.checkpoint import published_steps
from pipeline.training.collective import Collective
from pipeline.training.compression import build_compression
from pipeline.training.gradients import Gradients
from pipeline.training.moving_average import MovingAverage
from pipeline.training.objectives import build_objective, class_weight_table
from pipeline.training.optimizers import build_optimizer, scaled_learning_rate
from pipeline.training.precision import LossScale, take_device, weight_dtype
from pipeline.training.randomness import seed_all
from pipeline.training.step import Learner
from pipeline.training.warm_start import warm_start

logger = logging.getLogger(__name__)


def build_learner(
    task: TrainingTask,
    dataset: Dataset,
    collective: Collective,
    model: torch.nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Learner:
    """Everything that learns, in its state before the first step.

    Args:
        task: what to train on what.
        dataset: opened.
        collective: the ranks; rank 0's weights become everybody's.
        model: by default what the task describes.
        optimizer: by default what the task describes.
    """
    config = task.training
    device = take_device(config.device, collective.local_rank)
    if model is None:
        model = seeded_model(task, dataset)
    if config.init_from is not None and collective.rank == 0 and not published_steps(config.run_url):
        warm_start(model, config.init_from)
    model.to(device)
    collective.broadcast_([*(parameter.detach() for parameter in model.parameters()), *model.buffers()])
    code = task.code()
    counts = dataset.manifest.class_counts.get("train", {})
    weights = class_weight_table(dataset.schema, config.class_weights, counts)
    compression = build_compression(config.compression, collective, config.compression_rank)
    return Learner(
        model=model,
        objective=build_objective(dataset.schema, code.loss, code.metrics, dataset.manifest.statistics.get("label")),
        optimizer=optimizer or _optimizer(config, model, code),
        gradients=Gradients(model.parameters(), compression, config.bucket_bytes),
        buffers=SharedBuffers(model, collective),
        average=MovingAverage(model, config.ema_decay) if config.ema_decay else None,
        collective=collective,
        config=config,
        total_steps=config.epochs * steps_per_epoch(task, dataset),
        device=device,
        class_weights=None if weights is None else weights.to(device),
        scale=LossScale.start(config),
    )


def _optimizer(config: TrainingConfig, model: torch.nn.Module, code: UserCode) -> torch.optim.Optimizer:
    rate = scaled_learning_rate(config.optimizer, config.global_batch_size)
    optimizer = build_optimizer(config.optimizer, model.parameters(), code.optimizer, rate)
    if rate != config.optimizer.learning_rate:
        logger.info("learning rate %g, scaled from %g for the batch size", rate, config.optimizer.learning_rate)
    return optimizer


def seeded_model(task: TrainingTask, dataset: Dataset) -> torch.nn.Module:
    """The model that the task describes, on the CPU; its random start depends on the seed only."""
    seed_all(task.training.seed)
    return build_model(task.model, dataset.schema, task.user_code).to(weight_dtype(task.training))


def steps_per_epoch(task: TrainingTask, dataset: Dataset) -> int:
    """Steps of one epoch, whatever the number of ranks.

    Raises:
        DataError: there is none.
    """
    rows, batch = dataset.manifest.rows("train"), task.training.global_batch_size
    steps = rows // batch if task.training.last_batch == "drop" else -(-rows // batch)
    if not steps:
        raise DataError(
            f"the train split of {dataset.url} has {rows} rows, which make no step of "
            f"training.global_batch_size {batch}; expected at least one; lower it, or set last_batch to keep"
        )
    return steps
