"""RANK. What a label type asks for: the loss to minimize, and validation metrics from sums over all ranks.

Both are sums over rows. They are added over batches and ranks, and divided once, at the end: a mean of means would
depend on how the rows were divided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.metrics import LOWER_IS_BETTER, Measure, binary_metrics, binary_sums, measure_of

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Sums = npt.NDArray[np.float64]

SMALLER_IS_BETTER = LOWER_IS_BETTER | {"loss"}


@dataclass(frozen=True)
class Objective:
    """Loss and metrics of a training.

    Attributes:
        loss: predictions, label and row weight to the weighted SUM of losses.
        sums: predictions, label and row weight to a vector that adds up over batches and ranks.
        metrics: that vector to metrics by name.
        best_by: the metric that chooses the best epoch where the configuration says ``auto``.
    """

    loss: Loss
    sums: Callable[[Tensor, Tensor, Tensor], Sums]
    metrics: Callable[[Sums], dict[str, float]]
    best_by: str


def build_objective(schema: DatasetSchema, own_loss: Loss | None = None, own_metrics: Any = None) -> Objective:
    """The objective of the dataset's label, with the user's own loss and metrics if there are any."""
    objective = _objective_of(schema)
    if own_loss is not None:
        objective = replace(objective, loss=own_loss)
    return objective if own_metrics is None else _with_own_metrics(objective, own_metrics)


def _objective_of(schema: DatasetSchema) -> Objective:
    labels = len(schema.with_role("label"))
    if labels != 1 and schema.label_type != "regression":
        return Objective(binary_loss if labels else _no_loss, lambda p, y, w: np.zeros(0), lambda sums: {}, "loss")
    if schema.label_type == "binary":
        return Objective(binary_loss, _binary_sums, binary_metrics, "roc_auc")
    if schema.label_type == "multiclass":
        classes = measure_of("multiclass", len(schema.classes))
        return Objective(class_loss, lambda p, y, w: _class_sums(p, y, w, classes), classes.metrics, "loss")
    values = measure_of("regression")
    return Objective(squared_loss, lambda p, y, w: _regression_sums(p, y, w, values), values.metrics, "loss")


def _with_own_metrics(objective: Objective, own: Callable[..., dict[str, Any]]) -> Objective:
    """Beside the others: weighted sums by name, divided by the weight of all rows."""
    names: list[str] = []

    def sums(predictions: Tensor, label: Tensor, weight: Tensor) -> Sums:
        values = own(predictions, label, weight)
        names[:] = sorted(values)
        mine = [float(values[name]) for name in names]
        return np.concatenate([objective.sums(predictions, label, weight), mine, [float(weight.sum())]])

    def metrics(sums: Sums) -> dict[str, float]:
        rest, mine, weight = sums[: -len(names) - 1], sums[-len(names) - 1 : -1], sums[-1]
        means = {name: float(value / weight) if weight else math.nan for name, value in zip(names, mine, strict=True)}
        return {**objective.metrics(rest), **means}

    return replace(objective, sums=sums, metrics=metrics)


def _no_loss(predictions: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    raise ConfigError("the dataset has no label; expected a loss from code; give loss= a function")


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Whether a value of a metric beats the best so far; NaN never does."""
    if math.isnan(value):
        return False
    if than is None or math.isnan(than):
        return True
    return value < than if metric in SMALLER_IS_BETTER else value > than


def choose_metric(best_by: str, objective: Objective, metrics: dict[str, float]) -> str:
    """The metric that chooses the best epoch.

    Raises:
        ConfigError: there is no such metric.
    """
    name = objective.best_by if best_by == "auto" else best_by
    if name not in metrics:
        raise ConfigError(f"training.best_by is {best_by}; expected auto or one of {', '.join(sorted(metrics))}")
    return name


def binary_loss(predictions: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of logits, as a weighted sum; with several labels the mean over them."""
    losses = F.binary_cross_entropy_with_logits(predictions, label.to(predictions.dtype), reduction="none")
    return _rows(losses) @ weight


def class_loss(predictions: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of logits (rows x classes) against class numbers, as a weighted sum."""
    return F.cross_entropy(predictions, label, reduction="none") @ weight


def squared_loss(predictions: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Squared error, as a weighted sum; with several labels the mean over them."""
    return _rows((predictions - label.to(predictions.dtype)) ** 2) @ weight


def _rows(losses: Tensor) -> Tensor:
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def _binary_sums(predictions: Tensor, label: Tensor, weight: Tensor) -> Sums:
    return binary_sums(label.cpu().numpy(), torch.sigmoid(predictions).cpu().numpy(), weight.cpu().numpy())


def _class_sums(predictions: Tensor, label: Tensor, weight: Tensor, measure: Measure) -> Sums:
    probability = torch.softmax(predictions.float(), 1)
    return measure.sums(label.cpu().numpy(), probability.cpu().numpy(), weight.cpu().numpy())


def _regression_sums(predictions: Tensor, label: Tensor, weight: Tensor, measure: Measure) -> Sums:
    """Of several labels each counts as a row with its part of the weight."""
    labels = label[0].numel() if len(label) else 1
    parts = weight.double().repeat_interleave(labels) / labels
    answer = predictions.double().flatten().cpu().numpy()
    return measure.sums(label.double().flatten().cpu().numpy(), answer, parts.cpu().numpy())


def class_weight_table(
    schema: DatasetSchema, setting: str | Mapping[str, float] | None, counts: Mapping[str, int]
) -> Tensor | None:
    """The factor of the row weight for each class, by class number.

    Args:
        schema: names the classes; those of a binary label are ``0`` and ``1``.
        setting: ``balanced``, factors by class name (others 1), or none.
        counts: train rows of each class.

    Raises:
        ConfigError: a class is unknown, or the label has no classes.
    """
    if setting is None:
        return None
    classes = list(schema.classes) if schema.label_type == "multiclass" else ["0", "1"]
    if schema.label_type == "regression":
        raise ConfigError("training.class_weights is set for a regression label; expected null; it has no classes")
    if isinstance(setting, Mapping):
        unknown = sorted(set(setting) - set(classes))
        if unknown:
            offences = (
                f"training.class_weights.{n} is no class; expected one of {', '.join(classes)}" for n in unknown
            )
            raise ConfigError(*offences)
        return torch.tensor([setting.get(name, 1.0) for name in classes], dtype=torch.float64)
    missing = [name for name in classes if not counts.get(name)]
    if missing:
        raise ConfigError(f"training.class_weights is balanced, but train has no rows of {', '.join(missing)}")
    total = sum(counts[name] for name in classes)
    return torch.tensor([total / len(classes) / counts[name] for name in classes], dtype=torch.float64)


def row_weights(weight: Tensor | None, label: Tensor, dtype: Any) -> Tensor:
    """The weights of a batch's rows; 1 where the dataset has none."""
    return label.new_ones(len(label), dtype=dtype) if weight is None else weight.to(dtype)
