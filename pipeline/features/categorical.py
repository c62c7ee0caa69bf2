"""ANYWHERE. Categories as ids: 0 padding, 1 null, 2 unseen or rare, then the vocabulary by frequency."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pipeline.config.features import (
    BooleanFeature,
    CategoricalFeature,
    CategoriesFeature,
    HashedFeature,
)
from pipeline.dataset import Column
from pipeline.features.kinds import Array, Raw
from pipeline.features.lists import text_lists
from pipeline.features.names import Items, Names, Text, digest_of
from pipeline.features.numeric import Finite, fit_fill
from pipeline.features.sketches import Fitting, side_by_side
from pipeline.features.texts import Texts, coded, objects
from pipeline.features.vocabulary import Coverage, fit_name, fit_vocabulary

NULL, UNSEEN, FIRST = 1, 2, 3


def hash_bucket(text: str, buckets: int) -> int:
    """A stable bucket of a text, the same on every machine and in every version."""
    return int.from_bytes(digest_of(text)[:8], "little") % buckets


def lookup(texts: Texts, ids: dict[str, int], unseen: int = 1, missing: int = NULL) -> Array:
    """The id of each name; unseen ones go to buckets by hash."""
    return texts.each(lambda name: ids[name] if name in ids else UNSEEN + hash_bucket(name, unseen), missing, np.int32)


@dataclass(frozen=True)
class Categorical:
    """An id from a vocabulary of the train rows, or from hash buckets if there is none.

    Attributes:
        fill: the name that a null stands for; without it null has id 1.
        unseen: buckets for unseen and rare names, ids from 2 on; the vocabulary follows.
        coverage: of the train rows; only while preparing.
    """

    name: str
    column: str
    vocabulary: tuple[str, ...] = ()
    text: Text = field(default_factory=Text)
    fill: str | None = None
    unseen: int = 1
    coverage: Coverage = field(default=Coverage(), metadata={"transient": True}, compare=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        size = UNSEEN + self.unseen + len(self.vocabulary)
        return (Column(self.name, "int32", "categorical", cardinality=size),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Name -> id."""
        return {value: UNSEEN + self.unseen + position for position, value in enumerate(self.vocabulary)}

    @property
    def names(self) -> Names:
        """The names of the categories, from canonical raw columns."""
        return Names(self.column, self.text)

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column to ids."""
        fill = NULL if self.fill is None else int(lookup(coded(objects([self.fill])), self.ids, self.unseen)[0])
        return {self.name: lookup(self.names(raw), self.ids, self.unseen, fill)}


def fit_categorical(name: str, config: CategoricalFeature) -> Fitting:
    """The most frequent names that occur often enough; the rest are folded into the unseen."""
    text = Text.of(config.normalize, f"{name}:" if config.sensitive else None)
    draft = Categorical(name, config.column or name, text=text, unseen=config.unseen_buckets)
    fill = fit_name(draft.inputs, draft.names, config.missing)
    (found, coverage), name_of_null = yield from side_by_side([fit_vocabulary(draft.inputs, draft.names, config), fill])
    return replace(draft, vocabulary=tuple(value for value, _ in found), fill=name_of_null, coverage=coverage)


def fit_hashed(name: str, config: HashedFeature) -> Fitting:
    """Ids from 2 on by hash; nothing to learn but what null stands for."""
    draft = Categorical(name, config.column or name, text=Text.of(config.normalize), unseen=config.buckets)
    return replace(draft, fill=(yield from fit_name(draft.inputs, draft.names, config.missing)))


@dataclass(frozen=True)
class Categories:
    """Several categories in one value: ids padded with 0, or cut, to a fixed length; a null inside has id 1.

    Attributes:
        coverage: of the train rows; only while preparing.
    """

    name: str
    column: str
    length: int
    vocabulary: tuple[str, ...] = ()
    text: Text = field(default_factory=Text)
    coverage: Coverage = field(default=Coverage(), metadata={"transient": True}, compare=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        size = FIRST + len(self.vocabulary)
        return (Column(self.name, "int32", "vector", cardinality=size, shape=(self.length,)),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Name -> id."""
        return {value: FIRST + position for position, value in enumerate(self.vocabulary)}

    @property
    def names(self) -> Items:
        """The names of all categories of all rows."""
        return Items(self.column, self.text)

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column to a matrix of ids."""
        rows = text_lists(raw[self.column])
        ids = lookup(self.text(coded(rows.items)), self.ids)
        matrix = np.zeros((len(rows), self.length), dtype=np.int32)
        matrix[np.arange(self.length) < rows.lengths[:, None]] = ids[rows.places < self.length]
        return {self.name: matrix}


def fit_categories(name: str, config: CategoriesFeature) -> Fitting:
    """The vocabulary over all items of the train rows."""
    draft = Categories(name, config.column or name, config.length, text=Text.of(config.normalize))
    found, coverage = yield from fit_vocabulary(draft.inputs, draft.names, config)
    return replace(draft, vocabulary=tuple(value for value, _ in found), coverage=coverage)


@dataclass(frozen=True)
class Boolean:
    """A truth value as a category: 1 null, 3 false, 4 true.

    Attributes:
        fill: the value that a null stands for, 0 or 1; without it null has id 1.
    """

    name: str
    column: str
    fill: float | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, "int32", "categorical", cardinality=FIRST + 2),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column to ids."""
        values, missing = raw[self.column], np.isnan(raw[self.column])
        null = NULL if self.fill is None else FIRST + self.fill
        return {self.name: np.where(missing, null, FIRST + np.where(missing, 0, values)).astype(np.int32)}


def fit_boolean(name: str, config: BooleanFeature) -> Fitting:
    """Nothing to learn but what null stands for."""
    draft = Boolean(name, config.column or name)
    return replace(draft, fill=(yield from fit_fill(draft.inputs, Finite(draft.column), config.missing, draft.column)))
