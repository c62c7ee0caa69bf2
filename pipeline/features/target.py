"""ANYWHERE. Target encoding: a category's mean label, out of fold for train rows, so that no row sees its own label."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pipeline.config.features import TargetFeature
from pipeline.dataset import Column
from pipeline.features.kinds import Array, Raw
from pipeline.features.label_sums import Labelled, LabelSums, mean_of
from pipeline.features.names import Names, Text
from pipeline.features.sketches import Fitting, ask
from pipeline.features.texts import Texts
from pipeline.features.vocabulary import Coverage, fit_name, fit_vocabulary

LABEL, FOLD = "_pipeline_label", "_pipeline_fold"
"""Raw columns that preparation adds: the label as a number, and a hash of the row's id. Serving has neither."""
_NULL = "\0null"
_REST = "\0rest"


@dataclass(frozen=True)
class NamesOrNull:
    """The names of the categories in a raw column; null is one of them, or stands for another."""

    column: str
    text: Text
    fill: str | None = None

    def __call__(self, raw: Raw) -> Texts:
        names = Names(self.column, self.text)(raw)
        codes = np.where(names.codes < 0, len(names.names), names.codes)
        null = _NULL if self.fill is None else self.fill
        return Texts(codes, np.append(names.names, np.array([null], dtype=object)))


@dataclass(frozen=True)
class Target:
    """``(sum of labels + smoothing * mean) / (rows + smoothing)`` of a category; the mean where it is unseen.

    Attributes:
        vocabulary: the categories, and means: their values, from all train rows.
        fill: the category that a null stands for; without it null is one itself.
        fold_means: for each fold the means without its rows and, last, their overall mean; only while preparing.
        coverage: of the train rows; only while preparing.
    """

    name: str
    column: str
    vocabulary: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    mean: float = 0.0
    text: Text = field(default_factory=Text)
    folds: int = 5
    fill: str | None = None
    fold_means: tuple[tuple[float, ...], ...] = field(default=(), metadata={"transient": True}, compare=False)
    coverage: Coverage = field(default=Coverage(), metadata={"transient": True}, compare=False)

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

    @property
    def names(self) -> NamesOrNull:
        """The names of the categories, from canonical raw columns."""
        return NamesOrNull(self.column, self.text, self.fill)

    def measured(self, raw: Raw) -> Labelled:
        """Category, fold and label of each row, for `LabelSums`."""
        names = self.names(raw).renamed(lambda name: name if name in self._places else _REST)
        return Labelled(names, raw[FOLD] % self.folds, raw[LABEL])

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column to means, those of the other folds where the rows' folds are given."""
        unseen = len(self.vocabulary)
        places = self.names(raw).each(lambda name: self._places.get(name, unseen), unseen, np.int64)
        if FOLD in raw and self.fold_means:
            return {self.name: np.array(self.fold_means)[raw[FOLD] % self.folds, places].astype(np.float32)}
        return {self.name: np.array([*self.means, self.mean])[places].astype(np.float32)}


def fit_target(name: str, config: TargetFeature) -> Fitting:
    """The frequent categories, then rows and label sums of each in each fold."""
    draft = Target(name, config.column or name, text=Text.of(config.normalize), folds=config.folds)
    fill = yield from fit_name(draft.inputs, Names(draft.column, draft.text), config.missing)
    draft = replace(draft, fill=fill)
    found, coverage = yield from fit_vocabulary(draft.inputs, draft.names, config)
    draft = replace(draft, vocabulary=tuple(value for value, _ in found), coverage=coverage)
    sums = yield from ask((*draft.inputs, LABEL, FOLD), draft.measured, LabelSums())
    table = np.zeros((config.folds, len(draft.vocabulary) + 1, 2), dtype=object)
    places = {value: place for place, value in enumerate(draft.vocabulary)}
    for category, folds in sums.items():
        for fold, pair in folds.items():
            table[fold, places.get(category, len(places))] = pair
    total = table.sum(axis=0)
    means, mean = _smoothed(total, config.smoothing)
    fold_means = [[*m, overall] for m, overall in (_smoothed(total - one, config.smoothing) for one in table)]
    return replace(draft, means=tuple(means), mean=mean, fold_means=tuple(tuple(one) for one in fold_means))


def _smoothed(table: Array, smoothing: float) -> tuple[list[float], float]:
    """The means of categories, and that of all rows; of rows and exact sums, the last of them of unseen categories."""
    rows, sums = table[:, 0], table[:, 1]
    overall = mean_of(sum(sums), sum(rows))
    counts = rows.astype(np.float64)
    own = np.array([mean_of(total, count) for count, total in zip(rows, sums, strict=True)])
    share = np.divide(counts, counts + smoothing, out=np.zeros_like(counts), where=counts + smoothing > 0)
    return (share * own + (1 - share) * overall)[:-1].tolist(), overall
