"""ANYWHERE. A column of texts as codes into its distinct texts: what is done to texts is done to each one once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.features.kinds import Array, canonical


@dataclass(frozen=True, eq=False)
class Texts:
    """What `canonical` gives for kind ``string``, dictionary-encoded as Arrow and Parquet have it.

    Attributes:
        codes: integers; each a place in ``names``, or -1 for a missing text.
        names: object array of ``str``; a text may stand there twice, or without any row that has it, as may None.
    """

    codes: Array
    names: Array

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def values(self) -> Array:
        """The object array of ``str | None``."""
        return np.asarray(np.append(self.names, np.array([None], dtype=object))[self.codes])

    @property
    def present(self) -> Array:
        """Which rows have a text."""
        return np.asarray(self.codes >= 0)

    @property
    def used(self) -> Array:
        """Which of the names some row has."""
        used = np.zeros(len(self.names) + 1, dtype=bool)
        used[self.codes] = True  # a missing one is the last
        return used[:-1]

    def renamed(self, name: Callable[[str], str]) -> Texts:
        """The same rows with every distinct text replaced."""
        return Texts(self.codes, objects([None if text is None else name(text) for text in self.names]))

    def each(self, value: Callable[[str], Any], missing: Any, dtype: Any) -> Array:
        """For each row a value of its text, computed once per distinct text."""
        values = [missing if text is None else value(text) for text in self.names.tolist()]
        return np.asarray(np.array([*values, missing], dtype=dtype)[self.codes])


def coded(values: Array | Texts) -> Texts:
    """Texts of a canonical column of any kind that can be a category; nothing is done twice."""
    if isinstance(values, Texts):
        return values
    codes, distinct = pd.factorize(values)
    names = distinct if values.dtype == object else canonical(distinct, "string")
    return Texts(codes, np.asarray(names, dtype=object))


def objects(values: list[Any]) -> Array:
    """An object array of one dimension, whatever the items are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
