"""DRIVER and RANK. A made-up batch through what a step and a validation do, before an epoch has to find out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pipeline.config.training import TrainingConfig
from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models.dry_run import (
    HALVES,
    ROWS,
    made_up_inputs,
    made_up_label,
    made_up_weight,
    repeatable_randomness,
)
from pipeline.training.objectives import Objective
from pipeline.training.optimizers import optimizer_step


def dry_step(model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, schema: DatasetSchema) -> None:
    """Let the optimizer move the weights once: it may refuse its options, or the kind of gradients, only then.

    Raises:
        ConfigError: it fails.
    """
    with repeatable_randomness():
        predictions = model.train()(made_up_inputs(schema, ROWS))
        objective.loss(predictions, made_up_label(schema, ROWS), torch.ones(ROWS)).backward()
        try:
            optimizer_step(optimizer)
        except Exception as error:
            raise ConfigError(
                f"the optimizer {type(optimizer).__name__} fails in its first step: {type(error).__name__}: {error}; "
                "expected one that takes these options and dense gradients; change training.optimizer.options"
            ) from error


def refuse_lone_row(
    model: Callable[[], nn.Module], schema: DatasetSchema, config: TrainingConfig, rows: int, world_size: int
) -> None:
    """Refuse a model that takes no single row, as torch's batch norm does not, where a forward of training has one.

    Args:
        model: gives one to try, in float32; called only if there is such a forward.
        schema: of the dataset.
        config: how rows are divided.
        rows: of the train split.
        world_size: of the ranks among which a batch is divided.

    Raises:
        ConfigError: the model fails.
    """
    last = 0 if config.last_batch == "drop" else rows % config.global_batch_size
    batches = [last] if rows < config.global_batch_size else [config.global_batch_size, last]
    lone = [batch for batch in batches if _has_lone_row(batch, world_size, config.micro_batch_size)]
    if not lone:
        return
    with repeatable_randomness(), torch.no_grad():
        try:
            model().train()(made_up_inputs(schema, 1))
        except Exception as error:
            raise ConfigError(
                f"the model fails in training on a single row ({type(error).__name__}: {error}), which is what a batch "
                f"of {lone[0]} rows leaves to one of {world_size} ranks, or to a micro-batch; expected one that takes "
                "it, for instance with pipeline.models.tabular.BatchNorm instead of torch's; or choose another "
                "training.global_batch_size, or training.last_batch drop"
            ) from error


def _has_lone_row(batch: int, world_size: int, micro_batch_size: int) -> bool:
    """Whether some rank's share, or a micro-batch of it, is one row."""
    shares = {batch // world_size, -(-batch // world_size)} - {0}
    return any(share // -(-share // micro_batch_size) == 1 for share in shares)


def dry_validation(model: nn.Module, objective: Objective, schema: DatasetSchema) -> dict[str, float]:
    """Measure a batch as validation does: sums over rows, added up, then the metrics by name.

    Raises:
        ConfigError: sums or metrics fail, or are no sums over the rows of weight times a value.
    """
    label, weight = made_up_label(schema, ROWS), made_up_weight(ROWS)
    with repeatable_randomness(), torch.inference_mode():
        predictions = model.eval()(made_up_inputs(schema, ROWS))
        try:
            whole, weighty = (objective.sums(predictions, label, factor * weight) for factor in (1, 2))
            first, second = (objective.sums(predictions[half], label[half], weight[half]) for half in HALVES)
            metrics, of_twice, of_halves = map(objective.metrics, (whole, weighty, first + second))
            sizes = [objective.metrics(sums) for sums in (whole, first, second)]
        except ConfigError:
            raise
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
