"""DRIVER and EXECUTOR. What a network has to beat: the majority class, a logistic regression, boosted trees.

Fitted on train rows of the same dataset in the same run, and asked about the very same test rows. The only module
that imports scikit-learn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset import Dataset, DatasetSchema
from pipeline.inference.encoded import read_row_group, row_groups
from pipeline.inference.inputs import Arrays

logger = logging.getLogger(__name__)

TREE_ITERATIONS = 300
_MOST_CATEGORIES = 255
"""scikit-learn's trees split on at most so many categories; ids of larger vocabularies, which are ordered by
frequency, are treated as numbers."""

Probability = Callable[[Arrays], npt.NDArray[Any]]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        note: on what it was fitted, for the report.
        probability: encoded inputs -> probability of class 1 per row.
    """

    name: str
    note: str
    probability: Probability


@dataclass(frozen=True)
class TrainRows:
    """The rows that baselines are fitted on."""

    inputs: Arrays
    label: npt.NDArray[Any]
    weight: npt.NDArray[Any] | None
    of: int

    @property
    def note(self) -> str:
        """Which rows they are."""
        count = len(self.label)
        return f"all {count:,} train rows" if count == self.of else f"the first {count:,} of {self.of:,} train rows"


def read_train_rows(dataset: Dataset, most: int) -> TrainRows:
    """The first rows of the train split; rows lie in the order of a hash of their id, so these are a fair sample."""
    inputs: list[Arrays] = []
    others: list[Arrays] = []
    count = 0
    for group in row_groups(dataset, "train"):
        if count >= most:
            break
        group_inputs, group_others = read_row_group(dataset.url, dataset.schema, group)
        keep = slice(0, most - count)
        inputs.append({name: values[keep].copy() for name, values in group_inputs.items() if values.ndim == 2})
        others.append({name: values[keep].copy() for name, values in group_others.items()})
        count += len(others[-1][dataset.schema.label.name])
    columns = {name: np.concatenate([part[name] for part in others]) for name in others[0]}
    weights = [columns[column.name] for column in dataset.schema.with_role("weight")]
    return TrainRows(
        inputs={name: np.concatenate([part[name] for part in inputs]) for name in inputs[0]},
        label=columns[dataset.schema.label.name].astype(np.int64),
        weight=weights[0] if weights else None,
        of=dataset.manifest.rows("train"),
    )


def fit_baselines(dataset: Dataset, most_rows: int) -> list[Baseline]:
    """Fit all baselines.

    Args:
        dataset: its train split is read from the start, at most ``most_rows`` rows.
        most_rows: bounds memory and time.

    Returns:
        The majority class; then, if both classes and any plain columns are there, the other two.
    """
    rows = read_train_rows(dataset, most_rows)
    rate = float(np.average(rows.label, weights=rows.weight))
    baselines = [Baseline("majority class", f"positive rate of {rows.note}", Constant(rate))]
    if not 0 < rate < 1 or not set(rows.inputs) & {"numeric", "categorical"}:
        return baselines
    for name, fit in (("logistic regression", _fit_linear), ("gradient-boosted trees", _fit_trees)):
        started = time.monotonic()
        probability, note = fit(rows, dataset.schema)
        logger.info("evaluate: %s fitted on %s in %.1f s", name, rows.note, time.monotonic() - started)
        baselines.append(Baseline(name, f"{note}, on {rows.note}", probability))
    return baselines


@dataclass(frozen=True)
class Constant:
    """The same probability for every row."""

    value: float

    def __call__(self, inputs: Arrays) -> npt.NDArray[Any]:
        """One probability per row."""
        return np.full(len(next(iter(inputs.values()))), self.value)


@dataclass(frozen=True)
class Estimated:
    """A fitted scikit-learn classifier over a matrix that ``matrix`` makes of the inputs."""

    classifier: Any
    matrix: Callable[[Arrays], Any]

    def __call__(self, inputs: Arrays) -> npt.NDArray[Any]:
        """One probability per row."""
        return np.asarray(self.classifier.predict_proba(self.matrix(inputs))[:, 1])


def columns_side_by_side(inputs: Arrays) -> npt.NDArray[np.float32]:
    """Numbers, then category ids, as one float32 matrix."""
    parts = [inputs[name].astype(np.float32, copy=False) for name in ("numeric", "categorical") if name in inputs]
    return np.concatenate(parts, axis=1)


def _fit_trees(rows: TrainRows, schema: DatasetSchema) -> tuple[Probability, str]:
    with _openmp_that_does_not_spin():
        from sklearn.ensemble import HistGradientBoostingClassifier

    ids = [count <= _MOST_CATEGORIES for count in schema.cardinalities.values()]
    trees = HistGradientBoostingClassifier(
        max_iter=TREE_ITERATIONS,
        early_stopping=False,
        random_state=0,
        categorical_features=np.array([False] * len(schema.numeric) + ids),
    )
    trees.fit(columns_side_by_side(rows.inputs), rows.label, sample_weight=rows.weight)
    note = f"scikit-learn's HistGradientBoostingClassifier, {TREE_ITERATIONS} iterations"
    return Estimated(trees, columns_side_by_side), note


@contextlib.contextmanager
def _openmp_that_does_not_spin() -> Iterator[None]:
    """For the first import of scikit-learn: its threads should sleep while they wait for each other.

    On cores that are shared with a JVM, spinning made the trees six times slower. OpenMP reads the variable once,
    when it is loaded.
    """
    name = "OMP_WAIT_POLICY"
    given = os.environ.get(name)
    os.environ[name] = given or "PASSIVE"
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


@dataclass(frozen=True)
class OneHot:
    """Scaled numbers beside one indicator per category, as a sparse matrix."""

    mean: npt.NDArray[Any]
    scale: npt.NDArray[Any]
    first: npt.NDArray[np.int64]
    width: int

    @classmethod
    def fit(cls, inputs: Arrays, schema: DatasetSchema) -> OneHot:
        """Mean and standard deviation of the numbers, and where each category's indicators begin."""
        numeric = inputs.get("numeric", np.empty((1, 0), np.float32)).astype(np.float64)
        deviation = numeric.std(axis=0)
        counts = np.array([0, *schema.cardinalities.values()], np.int64)
        first = numeric.shape[1] + np.cumsum(counts)
        return cls(numeric.mean(axis=0), np.where(deviation > 0, deviation, 1.0), first[:-1], int(first[-1]))

    def __call__(self, inputs: Arrays) -> Any:
        """Rows x ``width`` in compressed rows."""
        from scipy.sparse import csr_matrix

        rows = len(next(iter(inputs.values())))
        numeric = (inputs.get("numeric", np.empty((rows, 0))) - self.mean) / self.scale
        ids = inputs.get("categorical", np.empty((rows, 0), np.int64)) + self.first
        positions = np.concatenate([np.tile(np.arange(numeric.shape[1]), (rows, 1)), ids], axis=1)
        values = np.concatenate([numeric, np.ones(ids.shape)], axis=1)
        starts = np.arange(rows + 1) * positions.shape[1]
        return csr_matrix((values.ravel(), positions.ravel(), starts), shape=(rows, self.width))


def _fit_linear(rows: TrainRows, schema: DatasetSchema) -> tuple[Probability, str]:
    with _openmp_that_does_not_spin():
        from sklearn.linear_model import LogisticRegression

    matrix = OneHot.fit(rows.inputs, schema)
    linear = LogisticRegression(max_iter=200, tol=1e-3)
    linear.fit(matrix(rows.inputs), rows.label, sample_weight=rows.weight)
    return Estimated(linear, matrix), "scikit-learn's LogisticRegression, scaled numbers and one-hot categories"
