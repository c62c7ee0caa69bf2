"""RANK. One optimizer step: what all ranks do with the rows of one global batch.

The gradient of a step is the weighted mean over all rows of the global batch, whatever its division among ranks and
micro-batches: each rank back-propagates the weighted SUM over its rows, sums are added over ranks, and the total is
divided once by the total weight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.training import TrainingConfig
from pipeline.training.batches import Batch
from pipeline.training.collective import Collective, Handle
from pipeline.training.gradients import Gradients
from pipeline.training.objectives import Objective, Sums, row_weights
from pipeline.training.optimizers import MovingAverage, learning_rate_factor, optimizer_step, set_learning_rate
from pipeline.training.precision import LossScale, mixed, weight_dtype
from pipeline.training.randomness import seed_all
from pipeline.training.states import Stateful

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Wishes:
    """What a rank would like to happen after a step; all ranks learn of it with the sums of the step."""

    stop: bool = False
    checkpoint: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a step came to; the same on every rank.

    Attributes:
        loss: weighted sum over the rows of the global batch; ``weight`` their total weight.
        skipped: the gradient was not finite, and the weights stayed as they were.
    """

    loss: float
    weight: float
    rows: int
    skipped: bool
    stop: bool
    checkpoint: bool


@dataclass
class Learner:
    """Everything that changes as a rank learns, and what it takes to change it.

    Attributes:
        class_weights: factor of the row weight for each class.
        scale: of the loss, for float16.
        rate_drops: how often the plateau schedule has lowered the learning rate.
        others: what else has a state, in a user's own loop: name to object with state_dict and load_state_dict.
        seconds_reducing: spent waiting for sums over ranks that backward could not hide.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    gradients: Gradients
    average: MovingAverage | None
    collective: Collective
    config: TrainingConfig
    total_steps: int
    device: torch.device = CPU
    class_weights: Tensor | None = None
    scale: LossScale = field(default_factory=LossScale)
    rate_drops: int = 0
    others: dict[str, Stateful] = field(default_factory=dict)
    seconds_reducing: float = 0.0


def train_step(learner: Learner, batch: Batch, step: int, wishes: Wishes) -> Outcome:
    """Move the weights by one step.

    Args:
        learner: model, optimizer and all that belongs to them.
        batch: this rank's rows of the global batch; there may be none.
        step: counted from 0 over the whole run.
        wishes: of this rank.
    """
    config, gradients = learner.config, learner.gradients
    seed_all(config.seed, step, learner.collective.rank)
    learner.model.train()
    gradients.zero()
    totals = _backward(learner, batch, wishes)
    weight, loss, rows, stop, checkpoint = _reduce(learner, totals)
    total_weight = weight * learner.scale.value
    norm = gradients.norm() / total_weight if weight else math.nan
    finite = math.isfinite(norm)
    if finite:
        gradients.scale(clip_factor(config.clip_norm, norm) / total_weight)
        _update(learner, step)
    else:
        gradients.compression.reset()
    learner.scale.update(config, finite)
    share_buffers(learner)
    return Outcome(loss, weight, int(rows), not finite, stop > 0, checkpoint > 0)


def _reduce(learner: Learner, totals: Handle) -> list[float]:
    """Wait for the sums over ranks."""
    began = time.perf_counter()
    learner.gradients.reduce()
    values: list[float] = totals.wait().tolist()
    learner.seconds_reducing += time.perf_counter() - began
    return values


def _update(learner: Learner, step: int) -> None:
    """Move the weights along the mean gradient, at the step's learning rate."""
    config = learner.config
    factor = learning_rate_factor(config.schedule, step, learner.total_steps, config.epochs, learner.rate_drops)
    set_learning_rate(learner.optimizer, factor)
    move_weights(learner, step)


def move_weights(learner: Learner, step: int) -> None:
    """Let the optimizer move the weights along the mean gradient, at whatever rate it has."""
    config = learner.config
    if config.clip_value is not None:
        learner.gradients.clip_value(config.clip_value)
    if config.l1:
        learner.gradients.add_signs(config.l1)
    optimizer_step(learner.optimizer)
    if learner.average is not None:
        learner.average.update(step)


def _backward(learner: Learner, batch: Batch, wishes: Wishes) -> Handle:
    """Back-propagate the losses of all micro-batches; the handle gives the sums of the step over all ranks.

    The sums travel while the last micro-batch is back-propagated, and gradients as soon as they are there.
    """
    batch, weights = _ready(learner, batch)
    totals = [float(weights.sum()), 0.0, batch.rows, wishes.stop, wishes.checkpoint]
    loss: Tensor | None = None
    for part, weight in micro_batches(batch, weights, learner.config.micro_batch_size):
        if loss is not None:
            loss.backward()
        with mixed(learner.config, learner.device):
            predictions = learner.model(part.inputs)
        value = learner.objective.loss(_full(predictions), part.label, weight)
        totals[1] += float(value.detach())
        loss = value * learner.scale.value
    handle = learner.collective.sum_async(torch.tensor(totals, dtype=torch.float64), "step")
    learner.gradients.arm(lambda: float(handle.wait()[0]) * learner.scale.value)
    if loss is not None:
        loss.backward()
    return handle


def _ready(learner: Learner, batch: Batch) -> tuple[Batch, Tensor]:
    """The batch where the model is and in its floating-point type, and the weights of its rows."""
    dtype, device = weight_dtype(learner.config), learner.device
    inputs = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, non_blocking=True)
        for name, tensor in batch.inputs.items()
    }
    label = batch.label.to(device, non_blocking=True)
    weights = row_weights(batch.weight, batch.label, dtype).to(device, non_blocking=True)
    if learner.class_weights is not None:
        weights = weights * learner.class_weights[label.long()].to(dtype)
    return Batch(inputs, label), weights


def _full(predictions: Tensor) -> Tensor:
    """Losses are computed in full precision."""
    return predictions.float() if predictions.dtype in (torch.float16, torch.bfloat16) else predictions


def micro_batches(batch: Batch, weights: Tensor, size: int) -> Iterator[tuple[Batch, Tensor]]:
    """Views of at most ``size`` rows, all of nearly the same size, with their weights."""
    count = -(-batch.rows // size)
    for number in range(count):
        part = slice(number * batch.rows // count, (number + 1) * batch.rows // count)
        inputs = {name: tensor[part] for name, tensor in batch.inputs.items()}
        yield Batch(inputs, batch.label[part]), weights[part]


def clip_factor(bound: float | None, norm: float) -> float:
    """What a gradient of such a norm is multiplied by."""
    return 1.0 if bound is None or norm <= bound else bound / norm


def share_buffers(learner: Learner) -> None:
    """Average what layers such as batch norm keep beside weights, so that all ranks hold the very same model."""
    buffers = [buffer for buffer in learner.model.buffers() if buffer.is_floating_point()]
    if not buffers or learner.collective.world_size == 1:
        return
    flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
    flat = learner.collective.sum_async(flat, "buffers").wait() / learner.collective.world_size
    for buffer, values in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


def validation_step(learner: Learner, batch: Batch) -> Sums:
    """What a batch adds to the validation sums: weighted loss, weight, and the sums of the objective."""
    batch, weights = _ready(learner, batch)
    with torch.inference_mode():
        with mixed(learner.config, learner.device):
            predictions = _full(learner.model(batch.inputs))
        loss = float(learner.objective.loss(predictions, batch.label, weights)) if batch.rows else 0.0
        sums = learner.objective.sums(predictions, batch.label, weights)
    return np.concatenate([[loss, float(weights.sum())], sums])
