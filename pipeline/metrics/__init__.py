"""ANYWHERE. What each label type is measured by, from sums that add up over batches, ranks and Spark tasks.

    measure = measure_of("multiclass", classes=10)
    sums = measure.sums(label, answer) + measure.sums(...) + ...    -> one vector, whatever the number of rows
    measure.metrics(sums)                                           -> {"accuracy": ..., "log_loss": ...}

Training (validation) and evaluation (test) use the very same definitions. With unit weights the sums are exact, so
they do not depend on the order of addition: ranks, tasks and a single process get the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from numpy.typing import ArrayLike

from pipeline.metrics.binary import BINARY_METRICS, Binary, Sums, roc_auc_bound
from pipeline.metrics.multiclass import MULTICLASS_METRICS, Multiclass
from pipeline.metrics.regression import REGRESSION_METRICS, Regression
from pipeline.metrics.several import Several

__all__ = [
    "BINARY_METRICS",
    "DECISIVE",
    "LOWER_IS_BETTER",
    "METRICS",
    "Binary",
    "LabelType",
    "Measure",
    "Multiclass",
    "Regression",
    "Several",
    "Sums",
    "lower_is_better",
    "measure_of",
    "metric_names",
    "roc_auc_bound",
]

LabelType = Literal["binary", "multiclass", "regression"]

METRICS: dict[LabelType, tuple[str, ...]] = {
    "binary": BINARY_METRICS,
    "multiclass": MULTICLASS_METRICS,
    "regression": REGRESSION_METRICS,
}
"""Names of the metrics of each label type."""

DECISIVE: dict[LabelType, str] = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
"""The metric that says which of two models is better."""

LOWER_IS_BETTER = frozenset({"loss", "log_loss", "mae", "rmse"})


def lower_is_better(metric: str, labels: Sequence[str] = ()) -> bool | None:
    """Whether less of one of our metrics, or of its ``<metric>_<label>``, is better; None of a metric not ours."""
    for name in ("loss", *(name for names in METRICS.values() for name in names)):
        if metric in (name, *(f"{name}_{label}" for label in labels)):
            return name in LOWER_IS_BETTER
    return None


def metric_names(label_type: LabelType | None, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of all that a dataset's labels are measured by; of several labels also ``<metric>_<label>`` of each."""
    plain = METRICS[label_type] if label_type else ()
    several = labels if len(labels) > 1 else ()
    return (*plain, *(f"{metric}_{label}" for metric in plain for label in several))


class Measure(Protocol):
    """How answers are measured.

    An *answer* is what a model says of a row: the probability of class 1 for a binary label, one probability per
    class for a multiclass label (rows x classes), the value for regression; of several labels one column for each.
    """

    def sums(self, label: ArrayLike, answer: ArrayLike, weight: ArrayLike | None = None) -> Sums:
        """What a batch adds; float64, of the same length for every batch."""
        ...

    def metrics(self, sums: Sums) -> dict[str, float]:
        """The metrics by name; NaN is what the rows do not define, or what an answer that is not finite spoils."""
        ...

    def rows(self, sums: Sums) -> int:
        """Rows that went into the sums, never weighted."""
        ...

    def confusion(self, sums: Sums) -> list[list[int]]:
        """Rows by label (outer) and prediction (inner); empty where there are no classes, or too many."""
        ...

    def curves(self, sums: Sums) -> dict[str, list[list[float]]]:
        """Points for plots, by name of the plot."""
        ...


def measure_of(
    label_type: LabelType | None,
    classes: int = 0,
    span: tuple[float, float] | None = None,
    labels: Sequence[str] = (),
) -> Measure:
    """The measure of a label type.

    Args:
        label_type: of the dataset's schema.
        classes: of a multiclass label.
        span: for regression, the values between which plots look closely.
        labels: names of the labels, if there are several.
    """
    if len(labels) > 1:
        return Several(measure_of(label_type, classes), tuple(labels))
    options: dict[str, Any] = {"span": span} if span else {}
    if label_type == "binary":
        return Binary()
    return Multiclass(classes) if label_type == "multiclass" else Regression(**options)
