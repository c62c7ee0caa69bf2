"""ANYWHERE. How a column of numbers is distributed: counts of neighbouring values, finely wherever rows are many.

The first pass counts by the leading bits of the numbers, of whatever magnitude they are. Cells that hold too many rows
are then cut into equal parts between their own extremes, again and again: of temperatures in Kelvin, years and moments,
whose leading bits are all the same, as of numbers over many powers of ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.features.counted import Counted, counted
from pipeline.features.kinds import Array
from pipeline.features.quantiles import LEADING, Bins, cells_by_place, leading_bits
from pipeline.features.sketches import Bits, Cells, Fitting, ask, float_of_bits, ordered_bits

RESOLUTION = 128
"""A cell holds at most one in so many rows, or one value only, or what `_ROUNDS` could not tell apart."""
_PARTS = 8 * RESOLUTION
"""Of all rows together; so many that even where they crowd within a cell one cut is mostly enough."""
_ROUNDS = 4
_STORED = 100
_MANY = 20
"""A number that more than one in so many rows have is compared by itself."""


@dataclass(frozen=True)
class Parts:
    """Counts of numbers within closed intervals, of which each is cut into equal parts.

    Attributes:
        intervals: lower end, upper end above it, number of parts; ascending and disjoint.
    """

    intervals: tuple[tuple[float, float, int], ...]
    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array | Counted) -> Cells:
        low, high, parts = (np.array(each) for each in zip(*self.intervals, strict=True))
        numbers = counted(values)
        ordered = ordered_bits(numbers.values)
        at = _last_up_to(low, numbers.values, ordered)
        inside = (at >= 0) & (numbers.values >= low[at]) & (numbers.values <= high[at])
        numbers, at, ordered = numbers.where(inside), at[inside], ordered[inside]
        share = (numbers.values - low[at]) / (high - low)[at]
        part = np.minimum((share * parts[at]).astype(np.int64), (parts - 1)[at])
        return cells_by_place((np.cumsum(parts) - parts)[at] + part, parts.sum(), ordered, numbers)

    def result(self, cells: Cells) -> Cells:
        return cells


def _last_up_to(ends: Array, values: Array, ordered: Bits) -> Bits:
    """Where among ascending ends the last one is that a value may reach; -1 where there is none.

    If the ends differ in their leading bits, as the lowest values of the first cells do, those of the value say which:
    a fifth of the time of a search.
    """
    leading = leading_bits(ordered_bits(ends))
    if (np.diff(leading) == 0).any():
        return np.searchsorted(ends, values, side="right") - 1
    table = np.full(1 << LEADING, -1)
    table[leading] = np.arange(len(ends))
    return table[leading_bits(ordered)]


@dataclass(frozen=True)
class Histogram:
    """Counts of the numbers between the lowest and the highest of each cell, ascending and disjoint."""

    low: Array
    high: Array
    count: Array

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return int(self.count.sum())

    @property
    def distinct(self) -> int | None:
        """How many distinct numbers there are, if each has a cell of its own."""
        return len(self.low) if (self.low == self.high).all() else None

    def quantiles(self, fractions: Sequence[float]) -> list[float]:
        """For each fraction the value that so many of all do not exceed, exact to one in `RESOLUTION` of the rows.

        Within a cell that holds several values, of which the ends are known, they are taken to be evenly spread.
        """
        below = np.cumsum(self.count) - self.count
        ranks = np.array([max(1, math.ceil(fraction * self.total)) for fraction in fractions])
        at = np.searchsorted(below, ranks, side="left") - 1
        share = (ranks - below[at] - 1) / np.maximum(self.count[at] - 1, 1)
        return (self.low[at] + (self.high[at] - self.low[at]) * share).tolist()  # type: ignore[no-any-return]

    def share_up_to(self, edges: Array) -> Array:
        """Of all numbers, how many do not exceed each edge."""
        low, high = self.low / 2, self.high / 2  # halves, so that no difference is infinite
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = np.nan_to_num((edges[:, None] / 2 - low) / (high - low))
        inside = np.where(self.high <= edges[:, None], 1.0, np.where(self.low > edges[:, None], 0.0, inside))
        return np.asarray(inside @ self.count / max(1, self.total))

    def tenths(self) -> Array:
        """Edges, ascending: about as many numbers up to each; where one number alone is many, below and up to it."""
        ends = np.cumsum(self.count)
        at = np.unique(np.searchsorted(ends, self.total * np.arange(1, 10) / 10))
        alone = at[(self.low[at] == self.high[at]) & (self.count[at] * _MANY > self.total)]
        return np.asarray(np.unique([*np.nextafter(self.low[alone], -np.inf), *self.high[at]]))

    def coarser(self) -> Histogram:
        """The same with few cells: those that begin in the same hundredth of the rows are one, large ones alone."""
        hundredth = (np.cumsum(self.count) - self.count) * _STORED // self.total
        large = (self.count * _STORED > self.total) & (self.low == self.high)
        begins = np.diff(hundredth, prepend=-1) != 0
        begins |= large | np.append(False, large[:-1])
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(begins)) - 1
        return Histogram(self.low[first], self.high[last], np.add.reduceat(self.count, first))

    def to_json(self) -> list[list[float]]:
        """Lowest, highest and count of each cell."""
        return [list(cell) for cell in zip(self.low.tolist(), self.high.tolist(), self.count.tolist(), strict=True)]

    @classmethod
    def from_json(cls, cells: Sequence[Sequence[float]]) -> Histogram:
        """The inverse of `to_json`."""
        low, high, count = (np.array(each) for each in zip(*cells, strict=True))
        return cls(low.astype(np.float64), high.astype(np.float64), count.astype(np.int64))


def histogram(columns: tuple[str, ...], prepared: Any) -> Fitting:
    """A `Histogram`, None if there is no number. Mostly two passes, one where values are few."""
    cells: Cells = yield from ask(columns, prepared, Bins())
    found = _histogram(cells)
    for _ in range(_ROUNDS):
        coarse = (found.count * RESOLUTION > found.total) & (found.low < found.high)
        if not coarse.any():
            break
        parts = np.maximum(2, found.count[coarse] * _PARTS // found.total)
        intervals = zip(found.low[coarse].tolist(), found.high[coarse].tolist(), parts.tolist(), strict=True)
        finer = _histogram((yield from ask(columns, prepared, Parts(tuple(intervals)))))
        both = [np.append(getattr(found, name)[~coarse], getattr(finer, name)) for name in ("low", "high", "count")]
        order = np.argsort(both[0])
        found = Histogram(*(each[order] for each in both))
    return found if found.total else None


def _histogram(cells: Cells) -> Histogram:
    order = np.argsort(cells.low)
    return Histogram(float_of_bits(cells.low[order]), float_of_bits(cells.high[order]), cells.count[order])
