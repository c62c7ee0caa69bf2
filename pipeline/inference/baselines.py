"""DRIVER and EXECUTOR. What a network has to beat: a constant, a linear model, boosted trees.

The constant is the frequency of the classes, or the mean; the linear model a logistic or a ridge regression.

Fitted on train rows of the same dataset in the same run, and asked about the very same test rows. The only module
that imports scikit-learn.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset import Dataset, DatasetSchema
from pipeline.inference.encoded import labels_of, read_row_group, row_groups
from pipeline.inference.inputs import Arrays
from pipeline.inference.matrices import OneHot, columns_side_by_side, learnable
from pipeline.machine import usable_cores
from pipeline.models.answers import Answers

logger = logging.getLogger(__name__)

TREE_ITERATIONS = 300
_MOST_CATEGORIES = 255
"""scikit-learn's trees split on at most so many categories; ids of larger vocabularies, which are ordered by
frequency, are treated as numbers."""
_MOST_TREES = 3000
"""scikit-learn grows one tree per class in each iteration; with very many classes there are fewer iterations."""

Answer = Callable[[Arrays], npt.NDArray[Any]]
Fit = Callable[["TrainRows", DatasetSchema], tuple[Answer, str]]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        note: on what it was fitted, for the report.
        answer: encoded inputs -> what it says of each row, see `pipeline.metrics.Measure`.
    """

    name: str
    note: str
    answer: Answer


@dataclass(frozen=True)
class TrainRows:
    """The rows that baselines are fitted on."""

    inputs: Arrays
    label: npt.NDArray[Any]
    weight: npt.NDArray[Any] | None
    of: int
    answers: Answers

    @property
    def note(self) -> str:
        """Which rows they are."""
        count = len(self.label)
        return f"all {count:,} train rows" if count == self.of else f"the first {count:,} of {self.of:,} train rows"

    def of_label(self, number: int) -> TrainRows:
        """The same rows with one of their labels."""
        return replace(self, label=self.label[:, number], answers=replace(self.answers, labels=()))


def read_train_rows(dataset: Dataset, most: int, answers: Answers) -> TrainRows:
    """The first rows of the train split; rows lie in the order of a hash of their id, so these are a fair sample."""
    inputs: list[Arrays] = []
    others: list[Arrays] = []
    count = 0
    for group in row_groups(dataset, "train"):
        if count >= most:
            break
        group_inputs, group_others = read_row_group(dataset.url, dataset.schema, group)
        keep = slice(0, most - count)
        inputs.append({name: values[keep].copy() for name, values in learnable(group_inputs).items()})
        others.append({name: values[keep].copy() for name, values in group_others.items()})
        count += len(labels_of(dataset.schema, others[-1]))
    columns = {name: np.concatenate([part[name] for part in others]) for name in others[0]}
    weights = [columns[column.name] for column in dataset.schema.with_role("weight")]
    label = answers.in_unit(labels_of(dataset.schema, columns))
    return TrainRows(
        inputs={name: np.concatenate([part[name] for part in inputs]) for name in inputs[0]},
        label=label if answers.type == "regression" else label.astype(np.int64),
        weight=weights[0] if weights else None,
        of=dataset.manifest.rows("train"),
        answers=answers,
    )


def span_of(rows: TrainRows) -> tuple[float, float] | None:
    """Between which values nearly all labels lie, for plots; none where there are no numbers, or only one."""
    if rows.answers.type != "regression" or rows.answers.labels:
        return None
    low, high = (float(value) for value in np.quantile(rows.label, (0.005, 0.995)))
    return (low, high) if low < high else None


def fit_baselines(rows: TrainRows, schema: DatasetSchema) -> list[Baseline]:
    """Fit all baselines on train rows.

    Returns:
        The constant; then, if the label varies and there is something to learn from, the other two. With several
        labels each baseline is one for every label.
    """
    if rows.answers.labels:
        each = [fit_baselines(rows.of_label(number), schema) for number in range(len(rows.answers.labels))]
        return [Baseline(b[0].name, b[0].note, SideBySide([one.answer for one in b])) for b in zip(*each, strict=False)]
    if len(np.unique(rows.label)) < 2 or not rows.inputs:
        return [_constant(rows)]
    linear = "ridge regression" if rows.answers.type == "regression" else "logistic regression"
    with _openmp_that_does_not_spin():
        importlib.import_module("sklearn.ensemble")
    fitted = _beside(lambda: _fit(linear, _fit_linear, rows, schema))
    trees = _fit("gradient-boosted trees", _fit_trees, rows, schema)
    return [_constant(rows), fitted.result(), trees]


def _fit(name: str, fit: Fit, rows: TrainRows, schema: DatasetSchema) -> Baseline:
    started = time.monotonic()
    answer, note = fit(rows, schema)
    logger.info("evaluate: %s fitted on %s in %.1f s", name, rows.note, time.monotonic() - started)
    return Baseline(name, f"{note}, on {rows.note}", answer)


def _beside(work: Callable[[], Baseline]) -> Future[Baseline]:
    """Begin something that computes outside Python; nobody waits for it who is interrupted meanwhile."""
    future: Future[Baseline] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="baseline", daemon=True).start()
    return future


def _constant(rows: TrainRows) -> Baseline:
    if rows.answers.type == "multiclass":
        classes = len(rows.answers.classes)
        counts = np.bincount(rows.label, rows.weight, minlength=classes)
        return Baseline("majority class", f"frequencies of {rows.note}", Constant(counts / counts.sum()))
    mean = np.average(rows.label, weights=rows.weight)
    if rows.answers.type == "binary":
        return Baseline("majority class", f"positive rate of {rows.note}", Constant(mean))
    return Baseline("mean", f"mean of {rows.note}", Constant(mean))


@dataclass(frozen=True)
class Constant:
    """The same answer to every row."""

    value: Any

    def __call__(self, inputs: Arrays) -> npt.NDArray[Any]:
        """One answer per row."""
        rows = len(next(iter(inputs.values())))
        return np.tile(self.value, (rows, *[1] * np.ndim(self.value)))


@dataclass(frozen=True)
class SideBySide:
    """What several baselines say of every row, one column for each."""

    answers: Sequence[Answer]

    def __call__(self, inputs: Arrays) -> npt.NDArray[Any]:
        """Rows x answers."""
        return np.column_stack([answer(inputs) for answer in self.answers])


@dataclass(frozen=True)
class Estimated:
    """A fitted scikit-learn estimator over a matrix that ``matrix`` makes of the inputs."""

    estimator: Any
    matrix: Callable[[Arrays], Any]
    answers: Answers

    def __call__(self, inputs: Arrays) -> npt.NDArray[Any]:
        """One answer per row; a class that it has never seen has probability 0."""
        matrix = self.matrix(inputs)
        if self.answers.type == "regression":
            return np.asarray(self.estimator.predict(matrix), np.float64)
        seen = self.estimator.predict_proba(matrix)
        if self.answers.type == "binary":
            return np.asarray(seen[:, 1])
        every = np.zeros((len(seen), len(self.answers.classes)))
        every[:, self.estimator.classes_] = seen
        return every


def _fit_trees(rows: TrainRows, schema: DatasetSchema) -> tuple[Answer, str]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    regression = rows.answers.type == "regression"
    matrix = columns_side_by_side(rows.inputs)
    ids = [count <= _MOST_CATEGORIES for count in schema.cardinalities.values()]
    iterations = min(TREE_ITERATIONS, max(10, _MOST_TREES // max(1, len(rows.answers.classes))))
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    trees = kind(
        max_iter=iterations,
        early_stopping=False,
        random_state=0,
        categorical_features=np.array([False] * (matrix.shape[1] - len(ids)) + ids),
    )
    # Threads of trees wait for each other after each of a great many short steps: one whose core somebody else works on
    # holds up all, six to forty times. So trees leave a core to the linear model beside them, and to everybody else.
    with threadpool_limits(max(1, usable_cores() - 1), user_api="openmp"):
        trees.fit(matrix, rows.label, sample_weight=rows.weight)
    note = f"scikit-learn's {kind.__name__}, {iterations} iterations"
    return Estimated(trees, columns_side_by_side, rows.answers), note


@contextlib.contextmanager
def _openmp_that_does_not_spin() -> Iterator[None]:
    """For the first import of scikit-learn: its threads should sleep while they wait for each other.

    On cores that are shared with a JVM, spinning made the trees six times slower. OpenMP reads the variable once,
    when it is loaded, which imports of scikit-learn do.
    """
    name = "OMP_WAIT_POLICY"
    given = os.environ.get(name)
    os.environ[name] = given or "PASSIVE"
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def _fit_linear(rows: TrainRows, schema: DatasetSchema) -> tuple[Answer, str]:
    from sklearn.linear_model import LogisticRegression, Ridge

    matrix = OneHot.fit(rows.inputs, schema)
    regression = rows.answers.type == "regression"
    # An iterative solver: the default one factorizes a square matrix with a row for each category.
    linear = Ridge(solver="sparse_cg", random_state=0) if regression else LogisticRegression(max_iter=200, tol=1e-3)
    linear.fit(matrix(rows.inputs), rows.label, sample_weight=rows.weight)
    note = f"scikit-learn's {type(linear).__name__}, scaled numbers and one-hot categories"
    return Estimated(linear, matrix, rows.answers), note
