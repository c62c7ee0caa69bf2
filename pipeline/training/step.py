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

import torch
from torch import Tensor, nn

from pipeline.config.training import TrainingConfig
from pipeline.errors import ConfigError
from pipeline.training.batches import Batch
from pipeline.training.buffers import SharedBuffers
from pipeline.training.collective import Collective, Handle
from pipeline.training.gradients import Gradients
from pipeline.training.moving_average import MovingAverage
from pipeline.training.objectives import Objective, row_weights
from pipeline.training.optimizers import optimizer_step
from pipeline.training.precision import LossScale, mixed, weight_dtype
from pipeline.training.randomness import seed_all
from pipeline.training.schedules import learning_rate_factor, set_learning_rate
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
        skipped: gradient or loss was not finite, and the weights stayed as they were.
    """

    loss: float
    weight: float
    rows: int
    skipped: bool
    stop: bool
    checkpoint: bool


@dataclass(frozen=True)
class Totals:
    """Sums over all ranks of what a step comes to, see `Outcome`; ``stop`` and ``checkpoint`` count ranks."""

    weight: float
    loss: float
    rows: float
    stop: float
    checkpoint: float

    def outcome(self, skipped: bool) -> Outcome:
        """Of the step."""
        return Outcome(self.loss, self.weight, int(self.rows), skipped, self.stop > 0, self.checkpoint > 0)


@dataclass
class Learner:
    """Everything that changes as a rank learns, and what it takes to change it.

    Attributes:
        class_weights: factor of the row weight for each class, in the loss.
        scale: of the loss, for float16.
        rate_drops: how often the plateau schedule has lowered the learning rate.
        others: what else has a state, in a user's own loop: name to object with state_dict and load_state_dict.
        seconds_reducing: spent waiting for sums over ranks that backward could not hide.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    gradients: Gradients
    buffers: SharedBuffers
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
    config = learner.config
    seed_all(config.seed, step, learner.collective.rank)
    learner.model.train()
    learner.gradients.zero()
    totals = mean_gradients(learner, _backward(learner, batch, wishes))
    factor = learning_rate_factor(config.schedule, step, learner.total_steps, config.epochs, learner.rate_drops)
    set_learning_rate(learner.optimizer, factor)
    return move(learner, step, totals)


def _backward(learner: Learner, batch: Batch, wishes: Wishes) -> Handle:
    """Back-propagate the losses of all micro-batches; the handle gives the sums of the step over all ranks."""
    batch, weights = ready(learner, batch)
    weights = loss_weights(learner, batch.label, weights)
    losses = 0.0
    loss: Tensor | None = None
    for part, weight in micro_batches(batch, weights, learner.config.micro_batch_size):
        if loss is not None:
            loss.backward()
        value = learner.objective.loss(predicted(learner, part), part.label, weight)
        losses += float(value.detach())
        loss = value * learner.scale.value
    handle = start_sums(learner, float(weights.sum()), losses, batch.rows, wishes)
    if loss is not None:
        loss.backward()
    return handle


def start_sums(learner: Learner, weight: float, loss: float, rows: int, wishes: Wishes) -> Handle:
    """Start to add up over ranks what a step comes to; the backward pass that follows does so with its gradients.

    The sums travel while the last micro-batch is back-propagated, and gradients as soon as they are there.
    """
    mine = torch.tensor([weight, loss, rows, wishes.stop, wishes.checkpoint], dtype=torch.float64)
    handle = learner.collective.sum_async(mine, "step")
    learner.gradients.arm(lambda: float(handle.wait()[0]) * learner.scale.value)
    return handle


def mean_gradients(learner: Learner, sums: Handle) -> Totals:
    """Wait for all sums of a step; gradients become those of the weighted mean over the rows of all ranks."""
    began = time.perf_counter()
    learner.gradients.reduce()
    totals = Totals(*sums.wait().tolist())
    learner.seconds_reducing += time.perf_counter() - began
    if totals.weight:
        learner.gradients.scale(1.0 / (totals.weight * learner.scale.value))
    return totals


def move(learner: Learner, step: int, totals: Totals) -> Outcome:
    """Let the optimizer move the weights along the mean gradient, at whatever rate it has.

    Not so where gradient or loss is not finite, and where the rows have no weight: then the weights stay as they are.

    Raises:
        ConfigError: there is a gradient of rows that weigh nothing.
    """
    norm = learner.gradients.norm()
    finite = math.isfinite(norm) and math.isfinite(totals.loss)
    if finite and not totals.weight and norm:
        raise ConfigError(
            f"the rows of step {step + 1} weigh 0 together, but their loss has a gradient; expected the SUM over rows "
            "of weight times loss; a loop from code says the weight of the rows in context.backward(loss, weight)"
        )
    if finite and totals.weight:
        if (factor := clip_factor(learner.config.clip_norm, norm)) != 1.0:
            learner.gradients.scale(factor)
        _move_weights(learner, step)
    if not finite:
        learner.gradients.compression.reset()
    learner.scale.update(learner.config, finite)
    learner.buffers.share()
    return totals.outcome(skipped=not finite)


def _move_weights(learner: Learner, step: int) -> None:
    config = learner.config
    if config.clip_value is not None:
        learner.gradients.clip_value(config.clip_value)
    if config.l1:
        learner.gradients.add_signs(config.l1)
    optimizer_step(learner.optimizer)
    if learner.average is not None:
        learner.average.update(step)


def ready(learner: Learner, batch: Batch) -> tuple[Batch, Tensor]:
    """The batch where the model is and in its floating-point type, and the weights of its rows."""
    dtype, device = weight_dtype(learner.config), learner.device
    inputs = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, non_blocking=True)
        for name, tensor in batch.inputs.items()
    }
    label = batch.label.to(device, non_blocking=True)
    weights = row_weights(batch.weight, batch.label, dtype).to(device, non_blocking=True)
    return Batch(inputs, label), weights


def loss_weights(learner: Learner, label: Tensor, weights: Tensor) -> Tensor:
    """The weights of rows in the loss: those of the rows themselves times those of their classes."""
    if learner.class_weights is None:
        return weights
    return weights * learner.class_weights[label.long()].to(weights.dtype)


def predicted(learner: Learner, batch: Batch) -> Tensor:
    """The model's output; losses and metrics are computed in full precision."""
    with mixed(learner.config, learner.device):
        predictions: Tensor = learner.model(batch.inputs)
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
