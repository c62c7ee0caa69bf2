"""ANYWHERE. Exact quantiles by counting: numbers in bins of their leading bits, the bins that matter ever finer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.features.counted import Counted, counted
from pipeline.features.kinds import Array
from pipeline.features.sketches import Bits, Cells, Fitting, ask, float_of_bits, ordered_bits

_LEVELS = (48, 36, 24, 0)
"""Right shifts by which quantiles are refined: 16 bits of a float64's 64, then 12, 12 and the last 24."""
LEADING = 64 - _LEVELS[0]
_LAST = len(_LEVELS) - 1
_FEW = 4096
"""So many numbers are told apart in one pass, whatever bits are left: a bin for each at most."""


@dataclass(frozen=True)
class Bins:
    """Counts of numbers by the leading bits of their ordered form, within given bins of a level above."""

    level: int = 0
    within: tuple[int, ...] | None = None
    above: int = 0
    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array | Counted) -> Cells:
        numbers = counted(values)
        ordered = ordered_bits(numbers.values)
        if self.within is not None:
            inside = np.isin(ordered >> _LEVELS[self.above], self.within)
            numbers, ordered = numbers.where(inside), ordered[inside]
        if self.level > 0:
            return _cells_by(ordered >> _LEVELS[self.level], ordered, numbers)
        cells = cells_by_place(leading_bits(ordered), 1 << LEADING, ordered, numbers)
        return replace(cells, key=cells.key - (1 << LEADING - 1))

    def result(self, cells: Cells) -> Cells:
        order = np.argsort(cells.key)
        return Cells.of_keys(cells.count[order], cells.key[order], cells.low[order], cells.high[order])


def leading_bits(ordered: Bits) -> Bits:
    """The first of `ordered_bits`, from 0 up, below two to the `LEADING`."""
    return (ordered >> _LEVELS[0]) + (1 << LEADING - 1)


def cells_by_place(places: Bits, size: int, ordered: Bits, numbers: Counted) -> Cells:
    """Count numbers, whose `ordered_bits` these are, by places from 0 up to ``size``, few enough for a table."""
    counts = numbers.rows_by(places, size)
    low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, np.iinfo(np.int64).min)
    np.minimum.at(low, places, ordered)
    np.maximum.at(high, places, ordered)
    there = np.flatnonzero(counts)
    return Cells.of_keys(counts[there], there, low[there], high[there])


def _cells_by(keys: Bits, ordered: Bits, numbers: Counted) -> Cells:
    """The same by keys of any size."""
    order = np.argsort(keys)
    keys, ordered = keys[order], ordered[order]
    if not len(keys):
        return Cells.of_keys(keys, keys, keys, keys)
    starts: Bits = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    places = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(keys)))
    counts = numbers.where(order).rows_by(places, len(starts))
    low, high = np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)
    return Cells.of_keys(counts, keys[starts], low, high)


def quantiles(columns: tuple[str, ...], prepared: Any, fractions: Sequence[float]) -> Fitting:
    """Exact quantiles: for each fraction q the smallest value that at least q of all values do not exceed.

    Numpy calls it ``method="inverted_cdf"``. None if there is no value. At most four passes; mostly three, one or two
    where values repeat.
    """
    cells: Cells = yield from ask(columns, prepared, Bins())
    total = int(cells.count.sum())
    if total == 0:
        return None
    ranks = [max(1, math.ceil(Fraction(fraction) * total)) for fraction in fractions]
    targets = [_descend(cells, rank) for rank in ranks]
    level = 0
    while open_bins := {target.key: target.count for target in targets if not target.resolved}:
        above, level = level, _LAST if sum(open_bins.values()) <= _FEW else level + 1
        cells = yield from ask(columns, prepared, Bins(level, tuple(sorted(open_bins)), above))
        bins = cells.key >> (_LEVELS[above] - _LEVELS[level])
        targets = [
            target if target.resolved else _descend(cells, target.rank, bins == target.key) for target in targets
        ]
    return [float(float_of_bits(np.array([target.low]))[0]) for target in targets]


@dataclass(frozen=True)
class _Target:
    """The bin that holds the value of a rank, and the rank inside it; resolved when the bin holds one value only."""

    key: int
    count: int
    rank: int
    low: int
    high: int

    @property
    def resolved(self) -> bool:
        return self.low == self.high


def _descend(cells: Cells, rank: int, where: npt.NDArray[np.bool_] | None = None) -> _Target:
    chosen = np.arange(len(cells.count)) if where is None else np.flatnonzero(where)
    cumulative = np.cumsum(cells.count[chosen])
    position = int(np.searchsorted(cumulative, rank))
    at = chosen[position]
    before = int(cumulative[position - 1]) if position else 0
    return _Target(int(cells.key[at]), int(cells.count[at]), rank - before, int(cells.low[at]), int(cells.high[at]))
