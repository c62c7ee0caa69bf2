"""ANYWHERE. Target encoding: a category's mean label, out of fold for train rows, so that no row sees its own label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pipeline.config.features import TargetFeature
from pipeline.dataset import Column
from pipeline.features.categorical import Text, as_strings
from pipeline.features.kinds import Array, is_missing
from pipeline.features.sketches import Fitting, Sums, Values, Want

LABEL, FOLD = "_label", "_fold"
"""Raw columns that preparation adds: the label as a number, and a hash of the row's id. Serving has neither."""
_STEP = 1 << 16
_NULL = "\0null"
_REST = "\0rest"


@dataclass(frozen=True)
class Target:
    """``(sum of labels + smoothing * mean) / (rows + smoothing)`` of a category; the mean where it is unseen.

    Attributes:
        vocabulary: the categories, and means: their values, from all train rows.
        fold_means: for each fold the means without its rows and, last, their overall mean; only while preparing.
    """

    name: str
    column: str
    vocabulary: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    mean: float = 0.0
    text: Text = field(default_factory=Text)
    folds: int = 5
    fold_means: tuple[tuple[float, ...], ...] = field(default=(), metadata={"transient": True}, compare=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, "float32", "numeric"),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {value: place for place, value in enumerate(self.vocabulary)}

    def names(self, raw: Mapping[str, Array]) -> Array:
        """The names of the categories; null is one of them."""
        names = self.text(as_strings(raw[self.column]))
        return np.where(is_missing(names), _NULL, names)

    def measured(self, raw: Mapping[str, Array]) -> Array:
        """Category, fold and label of each row, for `Sums`."""
        names = np.array([name if name in self._places else _REST for name in self.names(raw)], dtype=object)
        measured = np.empty((3, len(names)), dtype=object)
        measured[0] = names
        measured[1] = raw[FOLD] % self.folds
        measured[2] = np.rint(raw[LABEL] * _STEP).astype(np.int64)
        return measured

    def encode(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """From the canonical raw column to means, those of the other folds where the rows' folds are given."""
        places = np.array([self._places.get(name, len(self.vocabulary)) for name in self.names(raw)], dtype=np.int64)
        if FOLD in raw and self.fold_means:
            return {self.name: np.array(self.fold_means)[raw[FOLD] % self.folds, places].astype(np.float32)}
        return {self.name: np.array([*self.means, self.mean])[places].astype(np.float32)}


def fit_target(name: str, config: TargetFeature) -> Fitting:
    """The frequent categories, then rows and label sums of each in each fold."""
    draft = Target(name, config.column or name, text=Text.of(config.normalize), folds=config.folds)
    found = yield Want(draft.inputs, draft.names, Values(config.max_size, config.min_count))
    draft = replace(draft, vocabulary=tuple(value for value, _ in found))
    sums = yield Want((*draft.inputs, LABEL, FOLD), draft.measured, Sums())
    table = np.zeros((config.folds, len(draft.vocabulary) + 1, 2))
    places = {value: place for place, value in enumerate(draft.vocabulary)}
    for category, folds in sums.items():
        for fold, pair in folds.items():
            table[fold, places.get(category, len(places))] = pair
    total = table.sum(axis=0)
    means, mean = _smoothed(total, config.smoothing)
    fold_means = [[*m, overall] for m, overall in (_smoothed(total - one, config.smoothing) for one in table)]
    return replace(draft, means=tuple(means), mean=mean, fold_means=tuple(tuple(one) for one in fold_means))


def _smoothed(table: Array, smoothing: float) -> tuple[list[float], float]:
    rows, sums = table[:, 0], table[:, 1] / _STEP
    overall = float(sums.sum() / max(1.0, rows.sum()))
    divisor = rows + smoothing
    means = np.where(divisor > 0, (sums + smoothing * overall) / np.where(divisor > 0, divisor, 1), overall)
    return means[:-1].tolist(), overall
