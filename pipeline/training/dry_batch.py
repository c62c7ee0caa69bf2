"""DRIVER. A made-up batch through what a step and a validation do, so that ranks do not find out after an epoch."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models.dry_run import made_up_inputs, made_up_label
from pipeline.training.objectives import Objective
from pipeline.training.optimizers import optimizer_step

_ROWS = 4


def dry_step(model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, schema: DatasetSchema) -> None:
    """Let the optimizer move the weights once: it may refuse its options, or the kind of gradients, only then.

    Raises:
        ConfigError: it fails.
    """
    with torch.random.fork_rng(devices=[]):
        predictions = model.train()(made_up_inputs(schema, _ROWS))
        objective.loss(predictions, made_up_label(schema, _ROWS), torch.ones(_ROWS)).backward()
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
        ConfigError: sums or metrics fail, or sums do not grow with the weights of the rows.
    """
    label, weight = made_up_label(schema, _ROWS), torch.ones(_ROWS)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        predictions = model.eval()(made_up_inputs(schema, _ROWS))
        try:
            once = objective.sums(predictions, label, weight)
            metrics = objective.metrics(once + objective.sums(predictions, label, weight))
            weighty = objective.metrics(objective.sums(predictions, label, 2 * weight))
        except Exception as error:
            raise ConfigError(
                f"the metrics fail: {type(error).__name__}: {error}; expected metrics(predictions, label, weight) to "
                "give a dict of sums over the rows by name, of the same names for every batch"
            ) from error
    odd = [name for name, value in metrics.items() if abs(weighty[name] - value) > 1e-3 * abs(value)]
    if odd:
        raise ConfigError(
            *(
                f"the metric {name} is not a weighted sum (twice the weights do not give twice the sum); expected the "
                "SUM over rows of weight times value; what is reported is that divided by the weight of all rows"
                for name in odd
            )
        )
    return metrics
