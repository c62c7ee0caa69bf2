"""RANK. The learning rate of every step: a pure function of the step, so there is no scheduler to save."""

from __future__ import annotations

import math

import torch

from pipeline.config.training import ScheduleConfig


def learning_rate_factor(config: ScheduleConfig, step: int, total_steps: int, epochs: int = 1, drops: int = 0) -> float:
    """What the base learning rate is multiplied by in a step.

    Args:
        config: which schedule.
        step: counted from 0.
        total_steps: of the whole run.
        epochs: of the whole run.
        drops: how often validation has found no progress any more (plateau).
    """
    if config.name == "one_cycle":
        return _one_cycle(step / max(1, total_steps - 1))
    warmup_steps = round(config.warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if config.name == "cosine":
        return _cosine(1.0, 0.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if config.name == "step":
        return float(config.gamma ** (step * epochs // total_steps // config.every_epochs))
    if config.name == "plateau":
        return float(config.gamma**drops)
    return 1.0


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def _one_cycle(progress: float, rise: float = 0.3) -> float:
    """Smith and Topin's super-convergence cycle, in the proportions that torch's ``OneCycleLR`` has by default.

    Its peak lies at three tenths of the way from the first step to the last, torch's a step or so before; and momentum
    stays as it is.
    """
    if progress < rise:
        return _cosine(1 / 25, 1.0, progress / rise)
    return _cosine(1.0, 1 / 25e4, (progress - rise) / (1 - rise))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale the base rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
