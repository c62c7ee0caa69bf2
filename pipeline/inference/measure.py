"""DRIVER and EXECUTOR. One pass over a split: what every model says of every row, as sums.

The unit of work is the row group and the sums are exact, so one process and any number of Spark tasks give the same
bits.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset import Dataset, DatasetSchema
from pipeline.inference.baselines import Baseline
from pipeline.inference.encoded import RowGroup, labels_of, read_row_group, row_groups
from pipeline.inference.predictor import PredictorSource
from pipeline.metrics import Measure, Sums

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

IN_PROCESS_ROWS = 1_000_000
"""Below so many rows, reading them here takes less time than starting Spark's Python workers."""

OTHER = "(other)"
Key = tuple[str, ...]
"""What sums belong to: (model,), or (column, value) for the model on a slice."""


@dataclass(frozen=True)
class Measurement:
    """What a task needs to know.

    Attributes:
        measure: how answers are measured.
        slices: kept column -> the values that get sums of their own; all others share `OTHER`.
    """

    dataset_url: str
    schema: DatasetSchema
    predictor: PredictorSource
    measure: Measure
    baselines: Sequence[Baseline]
    slices: Mapping[str, Sequence[str]]

    def of_group(self, group: RowGroup) -> dict[Key, Sums]:
        """The sums of one row group."""
        inputs, others = read_row_group(self.dataset_url, self.schema, group, list(self.slices))
        predictor = self.predictor.load()
        label = predictor.answers.in_unit(labels_of(self.schema, others))
        weights = [others[column.name] for column in self.schema.with_role("weight")]
        weight = weights[0] if weights else None
        answer = predictor.predict_encoded(inputs)
        sums: dict[Key, Sums] = {("model",): self.measure.sums(label, answer, weight)}
        for baseline in self.baselines:
            sums[(baseline.name,)] = self.measure.sums(label, baseline.answer(inputs), weight)
        for column, values in self.slices.items():
            texts = as_texts(others[column])
            named = np.where(np.isin(texts, list(values)), texts, OTHER)
            for value in np.unique(named):
                chosen = named == value
                part = None if weight is None else weight[chosen]
                sums[(column, str(value))] = self.measure.sums(label[chosen], answer[chosen], part)
        return sums

    def of_groups(self, groups: Iterable[RowGroup]) -> Iterator[dict[Key, Sums]]:
        """The sums of several row groups, added up."""
        yield functools.reduce(add, map(self.of_group, groups), {})


def as_texts(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of a kept column as they are shown; null and NaN are ``(null)``."""
    shown = ["(null)" if value is None or value != value else str(value) for value in values.tolist()]
    return np.array(shown, dtype=object).astype(str)


def add(left: dict[Key, Sums], right: dict[Key, Sums]) -> dict[Key, Sums]:
    """Add up sums by key."""
    for key, sums in right.items():
        left[key] = left[key] + sums if key in left else sums
    return left


def is_large(dataset: Dataset, split: str) -> bool:
    """Whether Spark tasks measure a split faster than this process."""
    return dataset.manifest.rows(split) >= IN_PROCESS_ROWS


def measure(dataset: Dataset, split: str, measurement: Measurement, spark: SparkSession | None) -> dict[Key, Sums]:
    """Run a measurement over a split, in Spark tasks if it is big and there is a session."""
    sums: dict[Key, Sums] = _over_groups(dataset, split, measurement.of_groups, add, spark)
    return sums


def frequent_values(
    dataset: Dataset, split: str, columns: Sequence[str], most: int, spark: SparkSession | None
) -> dict[str, list[str]]:
    """The most frequent values of each kept column, ties in alphabetical order."""
    if not columns:
        return {}
    count = functools.partial(_count_values, dataset.url, dataset.schema, tuple(columns))
    counts = _over_groups(dataset, split, count, _merge_counts, spark)
    return {
        column: [value for value, _ in sorted(counts[column].items(), key=lambda item: (-item[1], item[0]))[:most]]
        for column in columns
    }


def _count_values(
    dataset_url: str, schema: DatasetSchema, columns: tuple[str, ...], groups: Iterable[RowGroup]
) -> Iterator[dict[str, Counter[str]]]:
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns}
    for group in groups:
        _, others = read_row_group(dataset_url, schema, group, columns)
        for column in columns:
            counts[column].update(as_texts(others[column]).tolist())
    yield counts


def _merge_counts(left: dict[str, Counter[str]], right: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    return {column: left[column] + right[column] for column in left}


def _over_groups(
    dataset: Dataset,
    split: str,
    function: Callable[[Iterable[RowGroup]], Iterator[Any]],
    merge: Callable[[Any, Any], Any],
    spark: SparkSession | None,
) -> Any:
    groups = row_groups(dataset, split)
    if spark is None or not is_large(dataset, split):
        return functools.reduce(merge, function(groups))
    tasks = min(len(groups), 4 * spark.sparkContext.defaultParallelism)
    logger.info("evaluate: %d row groups in %d Spark tasks", len(groups), tasks)
    return spark.sparkContext.parallelize(groups, tasks).mapPartitions(function).treeReduce(merge)
