"""RANK. What a label type asks for: the loss to minimize, and validation metrics from sums over all ranks.

Both are sums over rows. They are added over batches and ranks, and divided once, at the end: a mean of means would
depend on how the rows were divided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.metrics import binary_metrics, binary_sums

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Sums = npt.NDArray[np.float64]

SMALLER_IS_BETTER = frozenset({"loss", "log_loss", "mae", "rmse"})


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


def build_objective(schema: DatasetSchema, own_loss: Loss | None = None) -> Objective:
    """The objective of the dataset's label, with the user's own loss if there is one."""
    if schema.label_type == "binary":
        objective = Objective(binary_loss, _binary_sums, binary_metrics, "roc_auc")
    elif schema.label_type == "multiclass":
        classes = len(schema.classes)
        objective = Objective(class_loss, lambda p, y, w: _class_sums(p, y, w, classes), _class_metrics, "loss")
    else:
        objective = Objective(squared_loss, _regression_sums, _regression_metrics, "loss")
    if own_loss is None:
        return objective
    return Objective(own_loss, objective.sums, objective.metrics, objective.best_by)


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


def _class_sums(predictions: Tensor, label: Tensor, weight: Tensor, classes: int) -> Sums:
    """The weighted confusion matrix (label x prediction), flat, and the log loss."""
    cells = label.cpu().numpy() * classes + predictions.argmax(1).cpu().numpy()
    confusion = np.bincount(cells, weight.cpu().numpy(), minlength=classes * classes)
    losses = F.cross_entropy(predictions.double(), label, reduction="none") @ weight.double()
    return np.append(confusion, float(losses))


def _class_metrics(sums: Sums) -> dict[str, float]:
    """Accuracy; precision, recall and f1 as means over the classes that occur; log loss."""
    classes = math.isqrt(len(sums) - 1)
    confusion = sums[:-1].reshape(classes, classes)
    right, labelled, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    total = max(float(confusion.sum()), np.finfo(float).tiny)
    occurs = labelled > 0
    precision = right / np.maximum(predicted, np.finfo(float).tiny)
    recall = right / np.maximum(labelled, np.finfo(float).tiny)
    f1 = 2 * right / np.maximum(labelled + predicted, np.finfo(float).tiny)
    means = {"precision": precision, "recall": recall, "f1": f1}
    return {
        "accuracy": float(right.sum() / total),
        **{name: float(values[occurs].mean()) if occurs.any() else 0.0 for name, values in means.items()},
        "log_loss": float(sums[-1] / total),
    }


def _regression_sums(predictions: Tensor, label: Tensor, weight: Tensor) -> Sums:
    """Sums of weight, label, squared label, absolute error and squared error."""
    y, w = label.double(), weight.double()
    error = predictions.double() - y
    columns = [torch.ones_like(y), y, y**2, error.abs(), error**2]
    return np.array([float(_rows(column) @ w) for column in columns])


def _regression_metrics(sums: Sums) -> dict[str, float]:
    weight, label, squared_label, absolute, squared = (float(value) for value in sums)
    if not weight:
        return {"mae": math.nan, "rmse": math.nan, "r2": math.nan}
    variation = squared_label - label**2 / weight
    return {
        "mae": absolute / weight,
        "rmse": math.sqrt(squared / weight),
        "r2": 1 - squared / variation if variation > 0 else math.nan,
    }


def row_weights(weight: Tensor | None, label: Tensor, dtype: Any) -> Tensor:
    """The weights of a batch's rows; 1 where the dataset has none."""
    return label.new_ones(len(label), dtype=dtype) if weight is None else weight.to(dtype)
