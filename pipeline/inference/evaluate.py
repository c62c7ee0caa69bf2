"""DRIVER. The test split, labels known: the model beside baselines on the very same rows, and on slices of them."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline import storage
from pipeline.config.release import EvaluationConfig
from pipeline.dataset import Dataset, DatasetSchema
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.inference.baselines import fit_baselines, read_train_rows, span_of
from pipeline.inference.encoded import verify_crc
from pipeline.inference.measure import Key, Measurement, frequent_values, is_large, measure
from pipeline.inference.predictor import Predictor
from pipeline.metrics import DECISIVE, LabelType, Measure, Sums, lower_is_better, measure_of, roc_auc_bound

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

SHOWN_AS = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "f1": "F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
}
"""Names of metrics in words; others are words already."""

_SLICE_VALUES = 12
SPLIT = "test"


def number(value: float) -> str:
    """A metric as it is shown: four places, or five digits where errors come in large or tiny units."""
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 100 else f"{value:,.5g}"


@dataclass(frozen=True)
class Measured:
    """What one model reached.

    Attributes:
        name: ``model``, or the baseline's.
        note: how the baseline was fitted.
        metrics: by the names of `pipeline.metrics.METRICS`.
        confusion: rows by label (outer) and prediction (inner), see `pipeline.metrics.Measure`.
        curves: points for plots, by name.
    """

    name: str
    note: str
    metrics: Mapping[str, float]
    confusion: Sequence[Sequence[int]]
    curves: Mapping[str, Sequence[Sequence[float]]]

    @classmethod
    def of(cls, name: str, note: str, measure: Measure, sums: Sums) -> Measured:
        """What sums amount to."""
        return cls(name, note, measure.metrics(sums), measure.confusion(sums), measure.curves(sums))


def best_of(metric: str, contestants: Sequence[Measured], labels: Sequence[str] = ()) -> Measured | None:
    """Who is best by a metric, or by one of a label (``<metric>_<label>``), among those for whom it is defined."""
    reached = [one for one in contestants if not math.isnan(one.metrics.get(metric, math.nan))]
    choose = min if lower_is_better(metric, labels) else max
    return choose(reached, key=lambda one: one.metrics[metric], default=None)


@dataclass(frozen=True)
class SliceValue:
    """The model on the rows that have one value of a kept column; of a binary label also how many are 1."""

    column: str
    value: str
    rows: int
    positives: int | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as plain data.

    Attributes:
        model: digest of the model.
        dataset: content id.
        rows: of the test split; each confusion matrix adds up to it.
        label_type: decides which metrics there are.
        classes: names of the classes, by number.
        labels: names of the labels, if there are several; each has metrics of its own, ``<metric>_<label>``.
        weight: the column by which metrics, also of baselines and slices, are weighted; counts are of rows.
        roc_auc_bound: how far the model's ROC AUC, of any label, may be from that of unbinned scores.
        request: what was asked for, to know whether it has to be asked again.
    """

    FORMAT: ClassVar[tuple[str, int]] = ("evaluation", 1)

    model: str
    dataset: str
    rows: int
    measured: Measured
    baselines: Sequence[Measured] = ()
    slices: Sequence[SliceValue] = ()
    label_type: LabelType = "binary"
    classes: Sequence[str] = ("0", "1")
    labels: Sequence[str] = ()
    weight: str | None = None
    roc_auc_bound: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    request: str = ""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The model's metrics."""
        return self.measured.metrics

    @property
    def decisive(self) -> str:
        """The metric that says which model is better; a mean over labels of different units would say nothing."""
        return "r2" if self.labels and self.label_type == "regression" else DECISIVE[self.label_type]

    def best_baseline(self, metric: str) -> Measured | None:
        """The strongest rival by a metric, or by one of a label."""
        return best_of(metric, self.baselines, self.labels)

    @property
    def wins(self) -> bool:
        """Whether no baseline is better by the metric that decides."""
        return best_of(self.decisive, (self.measured, *self.baselines)) is self.measured

    @property
    def verdict(self) -> str:
        """In words, which of them is best by the metric that decides."""
        name, own, rival = self.decisive, self.metrics[self.decisive], self.best_baseline(self.decisive)
        if math.isnan(own) or rival is None:
            return "There is nothing to compare the model with."
        shown = f"{'mean ' if self.labels else ''}{SHOWN_AS.get(name, name)}"
        theirs = rival.metrics[name]
        if self.wins:
            return f"The model wins: {shown} {number(own)}, the {rival.name} {number(theirs)}."
        win = "win" if rival.name.endswith("s") and not rival.name.endswith("ss") else "wins"
        return f"The {rival.name} {win}: {shown} {number(theirs)}, the model {number(own)}."

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; metrics that are not defined become null."""
        return storage.finite_json(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_json` described."""
        return cls(
            **{
                **value,
                "measured": Measured(**_with_nan(value["measured"])),
                "baselines": tuple(Measured(**_with_nan(baseline)) for baseline in value["baselines"]),
                "slices": tuple(SliceValue(**_with_nan(entry)) for entry in value["slices"]),
            }
        )


def _with_nan(value: Mapping[str, Any]) -> dict[str, Any]:
    return {**value, "metrics": storage.numbers(value["metrics"])}


def evaluate(
    dataset: Dataset,
    predictor: Predictor,
    evaluation: EvaluationConfig,
    spark: Callable[[], SparkSession] | None = None,
) -> Evaluation:
    """Measure a model and the baselines on the test split.

    Args:
        dataset: encoded with the features that the model was trained with.
        predictor: the model.
        evaluation: rows for the baselines, columns for slices.
        spark: gives a session, once nothing is to be refused and the split is large; its tasks then share the work,
            and the result is the same to the bit.

    Raises:
        ConfigError: a slice is not a kept column, or there is no label.
        DataError: the split is empty, or the model was trained on differently encoded columns.
        StorageError: a part file is corrupt.
    """
    _check(dataset, predictor, evaluation)
    session = spark() if spark is not None and is_large(dataset, SPLIT) else None
    started = time.monotonic()
    verify_crc(dataset, SPLIT)
    rows = read_train_rows(dataset, evaluation.baseline_rows, predictor.answers)
    answers = predictor.answers
    how = measure_of(answers.type, len(answers.classes), span_of(rows), answers.labels)
    baselines = fit_baselines(rows, dataset.schema)
    fitted = time.monotonic()
    columns = _slice_columns(dataset.schema, evaluation.slices)
    slices = frequent_values(dataset, SPLIT, list(columns), _SLICE_VALUES, session)
    measurement = Measurement(dataset.url, dataset.schema, predictor.source, how, baselines, slices)
    sums = measure(dataset, SPLIT, measurement, session)
    result = _evaluation(dataset, predictor, measurement, columns, sums)
    seconds = {"baselines": fitted - started, "measure": time.monotonic() - fitted}
    logger.info("evaluate: %s", result.verdict)
    return dataclasses.replace(result, seconds={name: round(value, 1) for name, value in seconds.items()})


def _check(dataset: Dataset, predictor: Predictor, evaluation: EvaluationConfig) -> None:
    _slice_columns(dataset.schema, evaluation.slices)
    if dataset.schema.label_type is None:
        raise ConfigError("the dataset has no label; expected one to evaluate by; score a table and judge its answers")
    if not dataset.manifest.rows(SPLIT):
        raise DataError("the test split is empty; expected rows to evaluate on; raise split.test or give more data")
    if dataset.schema != predictor.schema or dataset.manifest.statistics != predictor.statistics:
        raise DataError(
            f"the model was trained on dataset {predictor.dataset[:12]}, whose columns are encoded differently from "
            f"{dataset.content_id[:12]}; expected the same encoding; train again"
        )


def _slice_columns(schema: DatasetSchema, names: Sequence[str]) -> dict[str, str]:
    """Column of the part files -> name of the slice."""
    found = {name: schema.raw_column(name) for name in names}
    if unknown := [name for name, column in found.items() if column is None]:
        known = ", ".join(column.name.removeprefix("raw_") for column in schema.with_role("id", "kept")) or "none"
        raise ConfigError(f"evaluation.slices names {', '.join(unknown)}; expected columns of dataset.keep: {known}")
    return {column.name: name for name, column in found.items() if column is not None}


def _evaluation(
    dataset: Dataset,
    predictor: Predictor,
    measurement: Measurement,
    columns: Mapping[str, str],
    sums: Mapping[Key, Sums],
) -> Evaluation:
    rows, how, label_type = dataset.manifest.rows(SPLIT), measurement.measure, predictor.answers.type
    own = sums[("model",)]
    if how.rows(own) != rows:
        raise PipelineError(f"{how.rows(own)} rows were evaluated; expected {rows}; report this")
    return Evaluation(
        model=predictor.digest,
        dataset=dataset.content_id,
        rows=rows,
        measured=Measured.of("model", "", how, own),
        baselines=tuple(Measured.of(b.name, b.note, how, sums[(b.name,)]) for b in measurement.baselines),
        slices=tuple(_slice(columns[key[0]], key[1], how, sums[key]) for key in sorted(sums) if len(key) == 2),
        label_type=label_type or "binary",
        classes=("0", "1") if label_type == "binary" else predictor.answers.classes,
        labels=predictor.answers.labels,
        weight=next((column.name for column in dataset.schema.with_role("weight")), None),
        roc_auc_bound=_roc_auc_bound(own, len(predictor.answers.labels)) if label_type == "binary" else 0.0,
    )


def _roc_auc_bound(sums: Sums, labels: int) -> float:
    return max(map(roc_auc_bound, np.split(sums, max(1, labels))))


def _slice(column: str, value: str, how: Measure, sums: Sums) -> SliceValue:
    table = how.confusion(sums)
    positives = sum(table[1]) if len(table) == 2 else None
    return SliceValue(column, value, how.rows(sums), positives, how.metrics(sums))
