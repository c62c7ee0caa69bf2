"""ANYWHERE. The categories that train rows have, and how much of other rows they cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.config.features import CategoricalFeature, CategoriesFeature, ConstantCategory, TargetFeature
from pipeline.features.kinds import Array, Raw
from pipeline.features.names import Text
from pipeline.features.sketches import Fitting, Present, Values, ask, side_by_side
from pipeline.features.texts import Texts, coded, objects


@dataclass(frozen=True)
class Coverage:
    """How many values a vocabulary is of, and how many of them it has no name for: they are too rare."""

    values: int = 0
    outside: int = 0


def fit_vocabulary(
    columns: tuple[str, ...], names: Any, config: CategoricalFeature | CategoriesFeature | TargetFeature
) -> Fitting:
    """Pairs of a name that occurs often enough and its count, the most frequent first, and their `Coverage`."""
    values = Values(config.max_size, config.min_count)
    found, (_, present) = yield from side_by_side([ask(columns, names, values), ask(columns, names, Present())])
    return found, Coverage(present, present - sum(count for _, count in found))


def fit_name(columns: tuple[str, ...], names: Any, missing: str | ConstantCategory) -> Fitting:
    """The name that a null stands for: the most frequent or a given one; None if it stands for none."""
    if isinstance(missing, ConstantCategory):
        return str(names.text(coded(objects([missing.constant]))).values[0])
    if missing != "mode":
        return None
    found = yield from ask(columns, names, Values(1))
    return found[0][0] if found else None


class HasVocabulary(Protocol):
    """A fitted feature whose ids or means are of the categories of the train rows."""

    @property
    def column(self) -> str:
        """The raw column."""

    @property
    def names(self) -> Any:
        """From canonical raw columns to the names of their categories, a picklable and hashable function."""

    @property
    def text(self) -> Text:
        """How a raw text becomes a name."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The names that it knows."""

    @property
    def coverage(self) -> Coverage:
        """Of the train rows; only while preparing."""


@dataclass(frozen=True)
class Unseen:
    """Of the categories in a raw column those that are not known: 1 for each, NaN for each that is."""

    names: Any
    known: frozenset[str]

    def __call__(self, raw: Raw) -> Array:
        names: Texts = self.names(raw)
        unseen = names.each(lambda name: np.nan if name in self.known else 1.0, np.nan, np.float64)
        return np.asarray(unseen[names.present])


def coverage(column: str, names: Any, known: frozenset[str]) -> Fitting:
    """The `Coverage` of rows by names that are known already."""
    values, outside = yield from ask((column,), Unseen(names, known), Present())
    return Coverage(values, outside)
