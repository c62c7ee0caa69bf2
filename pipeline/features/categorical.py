"""ANYWHERE. Categories as ids: 0 padding, 1 null, 2 unseen or rare, then the vocabulary by frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from pipeline.config.data import BooleanFeature, CategoricalFeature
from pipeline.dataset import Column
from pipeline.features.kinds import Array, canonical
from pipeline.features.sketches import Fitting, Values, Want

PADDING, NULL, UNSEEN, FIRST = 0, 1, 2, 3


@dataclass(frozen=True)
class Categorical:
    """An id from a vocabulary of the train rows."""

    name: str
    column: str
    vocabulary: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, "int32", "categorical", cardinality=FIRST + len(self.vocabulary)),)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {value: FIRST + position for position, value in enumerate(self.vocabulary)}

    def encode(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """From the canonical raw column to ids."""
        return {self.name: lookup(as_strings(raw[self.column]), self._ids)}


@dataclass(frozen=True)
class Boolean:
    """A truth value as a category: 1 null, 3 false, 4 true."""

    name: str
    column: str

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, "int32", "categorical", cardinality=FIRST + 2),)

    def encode(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """From the canonical raw column to ids."""
        values = raw[self.column]
        missing = np.isnan(values)
        return {self.name: np.where(missing, NULL, FIRST + np.where(missing, 0, values)).astype(np.int32)}


def as_strings(values: Array) -> Array:
    """The texts of a column that another feature uses as a number, or the texts as they are."""
    return values if values.dtype == object else canonical(values, "string")


def lookup(values: Array, ids: Mapping[str, int]) -> Array:
    """The id of each text: one dictionary look-up per distinct value."""
    codes, unique = pd.factorize(values)
    table: Array = np.array([ids.get(value, UNSEEN) for value in unique] + [NULL], dtype=np.int32)
    return np.asarray(table[codes])


def fit_categorical(name: str, config: CategoricalFeature) -> Fitting:
    """The most frequent values that occur often enough; the rest are folded into the unseen."""
    column = config.column or name
    found: Sequence[tuple[str, int]] = yield Want(column, as_strings, Values(config.max_size, config.min_count))
    return Categorical(name, column, tuple(value for value, _ in found))


def fit_boolean(name: str, config: BooleanFeature) -> Fitting:
    """Nothing to learn."""
    yield from ()
    return Boolean(name, config.column or name)
