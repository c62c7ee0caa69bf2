"""DRIVER. A made-up batch through what a step and a validation do, so that ranks do not find out after an epoch."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models.dry_run import HALVES, ROWS, made_up_inputs, made_up_label, made_up_weight
from pipeline.training.objectives import Objective
from pipeline.training.optimizers import optimizer_step


def dry_step(model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, schema: DatasetSchema) -> None:
    """Let the optimizer move the weights once: it may refuse its options, or the kind of gradients, only then.

    Raises:
        ConfigError: it fails.
    """
    with torch.random.fork_rng(devices=[]):
        predictions = model.train()(made_up_inputs(schema, ROWS))
        objective.loss(predictions, made_up_label(schema, ROWS), torch.ones(ROWS)).backward()
        try:
            optimizer_step(optimizer)
        except Exception as error:
            raise ConfigError(
                f"the optimizer {type(optimizer).__name__} fails in its first step: {type(error).__name__}: {error}; "
                "expected one that takes these options and dense gradients; change training.optimizer.options"
            ) from error


def dry_validation(model: nn.Module, objective: Objective, schema: DatasetSchema) -> dict[str, float]:
    """Measure a batch as validation does: sums over rows, added up, then the metrics by name.

    Raises:
        ConfigError: sums or metrics fail, or are no sums over the rows of weight times a value.
    """
    label, weight = made_up_label(schema, ROWS), made_up_weight(ROWS)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        predictions = model.eval()(made_up_inputs(schema, ROWS))
        try:
            whole, weighty = (objective.sums(predictions, label, factor * weight) for factor in (1, 2))
            first, second = (objective.sums(predictions[half], label[half], weight[half]) for half in HALVES)
            metrics, of_twice, of_halves = map(objective.metrics, (whole, weighty, first + second))
            sizes = [objective.metrics(sums) for sums in (whole, first, second)]
        except Exception as error:
            raise ConfigError(
                f"the metrics fail: {type(error).__name__}: {error}; expected metrics(predictions, label, weight) to "
                "give a dict of sums over the rows by name, of the same names for every batch"
            ) from error
    reasons = {
        "twice the weights do not give twice the sum": of_twice,
        "the sums of two halves of a batch do not add up to that of the whole": of_halves,
    }
    odd: dict[str, str] = {}
    for reason, others in reasons.items():
        for name, value in metrics.items():
            if abs(others[name] - value) > 1e-3 * max(abs(each[name]) for each in sizes):
                odd.setdefault(name, reason)
    if odd:
        raise ConfigError(
            *(
                f"the metric {name} is not a weighted sum ({reason}); expected the SUM over rows of weight times "
                "value; what is reported is that divided by the weight of all rows"
                for name, reason in odd.items()
            )
        )
    return metrics
