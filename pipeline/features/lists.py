"""ANYWHERE. A column of lists as one run of items and the length of each list: no object per row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.features.kinds import Array, is_missing
from pipeline.features.texts import Texts, coded, objects


@dataclass(frozen=True, eq=False)
class Lists:
    """What `canonical` gives for kinds ``vector`` and ``strings``, laid out as Arrow has it.

    Attributes:
        items: those of all lists, one after the other: an array of numbers, or `Texts`.
        lengths: int64; how many of them are each row's, 0 where a row has no list.
        present: which rows have a list; an empty one is a list.
    """

    items: Array | Texts
    lengths: Array
    present: Array

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def places(self) -> Array:
        """The place of each item in its list."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.asarray(np.arange(len(self.items)) - np.repeat(starts, self.lengths))


def present(values: Array | Texts | Lists) -> Array:
    """Which rows of a canonical column have a value."""
    return values.present if isinstance(values, (Texts, Lists)) else ~is_missing(values)


def number_lists(rows: Array | Lists) -> Lists:
    """Lists of a canonical column of kind ``vector``."""
    if isinstance(rows, Lists):
        return rows
    present = [row for row in rows if row is not None]
    return _lists(rows, np.concatenate(present) if present else np.zeros(0))


def text_lists(rows: Array | Lists) -> Lists:
    """Lists of a canonical column of kind ``strings``; their items are `Texts`."""
    if isinstance(rows, Lists):
        return rows
    return _lists(rows, coded(objects([item for row in rows if row is not None for item in row])))


def _lists(rows: Array, items: Array | Texts) -> Lists:
    lengths = np.array([0 if row is None else len(row) for row in rows], dtype=np.int64)
    return Lists(items, lengths, np.array([row is not None for row in rows], dtype=bool))
