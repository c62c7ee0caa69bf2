"""RANK. What a label type asks for: the loss to minimize, and validation metrics from sums over all ranks.

Both are sums over rows. They are added over batches and ranks, and divided once, at the end: a mean of means would
depend on how the rows were divided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.agreement import check_best_is
from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.metrics import DECISIVE, lower_is_better, measure_of
from pipeline.models.answers import Answers

BestIs = Literal["auto", "min", "max"]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Sums = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """Loss and metrics of a training.

    Attributes:
        loss: predictions, label and row weight to the weighted SUM of losses.
        sums: predictions, label and row weight to a vector that adds up over batches and ranks.
        metrics: that vector to metrics by name.
        best_by: the metric that chooses the best epoch where the configuration says ``auto``.
        labels: names of the labels, by which metrics may be named too.
    """

    loss: Loss
    sums: Callable[[Tensor, Tensor, Tensor], Sums]
    metrics: Callable[[Sums], dict[str, float]]
    best_by: str
    labels: tuple[str, ...] = ()


def build_objective(
    schema: DatasetSchema,
    own_loss: Loss | None = None,
    own_metrics: Any = None,
    label_state: Mapping[str, Any] | None = None,
) -> Objective:
    """The objective of the dataset's labels.

    Args:
        schema: names the labels and their type.
        own_loss: the user's, instead of the one that the type asks for.
        own_metrics: the user's, beside those that the type asks for.
        label_state: the dataset's ``statistics["label"]``: the unit of a regression label, in which it is measured.

    Raises:
        ConfigError: several labels of several classes each.
    """
    objective = _objective_of(schema, label_state or {})
    if own_loss is not None:
        objective = replace(objective, loss=own_loss)
    return objective if own_metrics is None else _with_own_metrics(objective, own_metrics)


def _objective_of(schema: DatasetSchema, label_state: Mapping[str, Any]) -> Objective:
    if schema.label_type is None:
        return Objective(_no_loss, lambda p, y, w: np.zeros(0), lambda sums: {}, "loss")
    if schema.label_type == "multiclass" and len(schema.labels) > 1:
        raise ConfigError(f"{len(schema.labels)} labels are multiclass; expected one; several are binary or regression")
    measure = measure_of(schema.label_type, len(schema.classes), labels=schema.labels)
    answers = Answers.of(schema, label_state)

    def sums(predictions: Tensor, label: Tensor, weight: Tensor) -> Sums:
        answer = answers.from_output(predictions.detach().cpu())
        return measure.sums(answers.in_unit(label.cpu().numpy()), answer, weight.cpu().numpy())

    best_by = DECISIVE["binary"] if schema.label_type == "binary" else "loss"
    return Objective(_LOSSES[schema.label_type], sums, measure.metrics, best_by, schema.labels)


def _with_own_metrics(objective: Objective, own: Callable[..., dict[str, Any]]) -> Objective:
    """Beside the others: weighted sums by name, divided by the weight of all rows.

    Raises:
        ConfigError: from its metrics, where one would take the place of ours.
    """
    names: list[str] = []

    def sums(predictions: Tensor, label: Tensor, weight: Tensor) -> Sums:
        values = own(predictions, label, weight)
        names[:] = sorted(values)
        mine = [float(values[name]) for name in names]
        return np.concatenate([objective.sums(predictions, label, weight), mine, [float(weight.sum())]])

    def metrics(sums: Sums) -> dict[str, float]:
        rest, mine, weight = sums[: -len(names) - 1], sums[-len(names) - 1 : -1], sums[-1]
        means = {name: float(value / weight) if weight else math.nan for name, value in zip(names, mine, strict=True)}
        ours = objective.metrics(rest)
        if taken := sorted({"loss", *ours} & means.keys()):
            raise ConfigError(
                *(f"the metric {name} from code has the name of one of ours; expected another" for name in taken)
            )
        return {**ours, **means}

    return replace(objective, sums=sums, metrics=metrics)


def _no_loss(predictions: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    raise ConfigError("the dataset has no label; expected a loss from code; give loss= a function")


def is_better(
    metric: str, value: float, than: float | None, best_is: BestIs = "auto", labels: Sequence[str] = ()
) -> bool:
    """Whether a value of a metric beats the best so far; NaN never does.

    Args:
        metric: ours, also as ``<metric>_<label>``, or any other one if ``best_is`` says what is better.
        value: of the metric; ``than`` the best one so far.
        than: None before the first one.
        best_is: of the configuration.
        labels: of the dataset.

    Raises:
        ConfigError: nobody says what is better.
    """
    check_best_is(metric, best_is, labels)
    if math.isnan(value):
        return False
    if than is None or math.isnan(than):
        return True
    smaller = lower_is_better(metric, labels) if best_is == "auto" else best_is == "min"
    return value < than if smaller else value > than


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


_LOSSES: dict[str, Loss] = {"binary": binary_loss, "multiclass": class_loss, "regression": squared_loss}


def class_weight_table(
    schema: DatasetSchema, setting: str | Mapping[str, float] | None, counts: Mapping[str, int]
) -> Tensor | None:
    """The factor of the row weight for each class, by class number.

    Args:
        schema: names the classes; those of a binary label are ``0`` and ``1``.
        setting: ``balanced``, factors by class name (others 1), or none.
        counts: train rows of each class.

    Raises:
        ConfigError: a class is unknown, no train row would have any weight, or the label has no classes.
    """
    if setting is None:
        return None
    classes = list(schema.classes) if schema.label_type == "multiclass" else ["0", "1"]
    if schema.label_type in ("regression", None):
        raise ConfigError("training.class_weights is set for a label without classes; expected null")
    if len(schema.labels) > 1:
        raise ConfigError(f"training.class_weights is set for {len(schema.labels)} labels; expected null, or one label")
    if isinstance(setting, Mapping):
        unknown = sorted(set(setting) - set(classes))
        if unknown:
            offences = (
                f"training.class_weights.{n} is no class; expected one of {', '.join(classes)}" for n in unknown
            )
            raise ConfigError(*offences)
        if not any(setting.get(name, 1.0) and (counts.get(name) or not counts) for name in classes):
            raise ConfigError(
                f"training.class_weights {dict(setting)} leave no row of train any weight; expected more than 0 for a "
                "class that train has"
            )
        return torch.tensor([setting.get(name, 1.0) for name in classes], dtype=torch.float64)
    missing = [name for name in classes if not counts.get(name)]
    if missing:
        raise ConfigError(f"training.class_weights is balanced, but train has no rows of {', '.join(missing)}")
    total = sum(counts[name] for name in classes)
    return torch.tensor([total / len(classes) / counts[name] for name in classes], dtype=torch.float64)


def row_weights(weight: Tensor | None, label: Tensor, dtype: Any) -> Tensor:
    """The weights of a batch's rows; 1 where the dataset has none."""
    return label.new_ones(len(label), dtype=dtype) if weight is None else weight.to(dtype)
