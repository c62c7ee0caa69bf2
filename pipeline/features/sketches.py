"""ANYWHERE. Statistics that do not depend on the order of addition: exact sums, exact quantiles, value counts.

A sketch turns an array into *cells*; cells with the same key are merged by adding counts and taking the lowest
and highest value, which any engine does exactly in any order. `result` then reads the statistic off the merged cells.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.features.kinds import Array, is_missing

Bits = npt.NDArray[np.int64]
_HALF = 27
_LEVELS = (48, 36, 24, 0)
"""Right shifts by which quantiles are refined: 16 bits of a float64's 64, then 12, 12 and the last 24."""


@dataclass(frozen=True)
class Cells:
    """Mergeable counts by integer key, with the lowest and highest value seen under it, or by text."""

    count: Bits
    key: Bits
    low: Bits
    high: Bits
    text: Array

    @classmethod
    def of_keys(cls, count: Bits, key: Bits, low: Bits, high: Bits) -> Cells:
        """Counts by integer."""
        return cls(count, key, low, high, np.full(len(count), "", dtype=object))

    @classmethod
    def of_texts(cls, count: Bits, text: Array) -> Cells:
        """Counts by text."""
        zero = np.zeros(len(count), dtype=np.int64)
        return cls(count, zero, zero, zero, text)


class Sketch(Protocol):
    """What can be asked about the values of a column."""

    @property
    def limit(self) -> int | None:
        """The most cells that are wanted, those of the largest count first, then of the smallest text."""
        ...

    @property
    def min_count(self) -> int:
        """Merged cells with a smaller count are left out."""
        ...

    def cells(self, values: Array) -> Cells:
        """The cells of some values; missing ones do not count."""
        ...

    def result(self, cells: Cells) -> Any:
        """The statistic, from the merged cells."""
        ...


@dataclass(frozen=True)
class Want:
    """A statistic wanted of some raw columns, prepared as far as the feature knows how to."""

    columns: tuple[str, ...]
    prepared: Any
    """A picklable function from canonical raw columns by name to the values that are measured."""
    sketch: Sketch


Fitting = Generator[Want, Any, Any]
"""A fit asks for one statistic after the other and ends with its result; the engine answers many fits in one pass."""


@dataclass(frozen=True)
class Moments:
    """Count, mean, population standard deviation and extremes of numbers, correctly rounded.

    A float64 is an integer times a power of two. Its integer is cut into halves of at most 27 bits, whose sums by
    exponent are exact; x squared is cut without error into three float64 first (T. J. Dekker 1971).
    """

    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array) -> Cells:
        present = values[~np.isnan(values)]
        terms = (present, *_square(present))
        parts = [_sum_cells(term, which * _SERIES) for which, term in enumerate(terms)]
        ordered = ordered_bits(present)
        extremes = (ordered.min(), ordered.max()) if len(ordered) else (0, 0)
        count = np.array([len(present)] if len(present) else [], dtype=np.int64)
        keys = np.concatenate([part[0] for part in parts] + [np.full(len(count), -1, dtype=np.int64)])
        counts = np.concatenate([part[1] for part in parts] + [count])
        low, high = np.zeros_like(keys), np.zeros_like(keys)
        if len(count):
            low[-1], high[-1] = extremes
        return Cells.of_keys(counts, keys, low, high)

    def result(self, cells: Cells) -> MomentsResult | None:
        at = np.flatnonzero(cells.key == -1)
        if not len(at):
            return None
        count = int(cells.count[at[0]])
        total, square = Fraction(0), Fraction(0)
        for key, part in zip(cells.key.tolist(), cells.count.tolist(), strict=True):
            if key < 0:
                continue
            which, rest = divmod(key, _SERIES)
            exponent, upper = divmod(rest, 2)
            value = Fraction(part) * Fraction(2) ** (exponent - _BIAS + (_HALF if upper else 0))
            total, square = (total + value, square) if which == 0 else (total, square + value)
        mean = total / count
        variance = square / count - mean * mean
        low, high = float_of_bits(cells.low[at])[0], float_of_bits(cells.high[at])[0]
        return MomentsResult(count, float(mean), math.sqrt(float(variance)), float(low), float(high))


@dataclass(frozen=True)
class MomentsResult:
    """What `Moments` gives."""

    count: int
    mean: float
    std: float
    min: float
    max: float


_SERIES = 1 << 13
_BIAS = 1200


def _square(values: Array) -> tuple[Array, Array, Array]:
    """The square of x as an exact sum of three float64, for magnitudes between 1e-140 and 1e150."""
    high = values * 134217729.0
    high = high - (high - values)
    low = values - high
    return high * high, 2.0 * high * low, low * low


def _sum_cells(values: Array, offset: int) -> tuple[Bits, Bits]:
    fraction, exponent = np.frexp(values)
    whole = np.ldexp(fraction, 53).astype(np.int64)
    upper, lower = whole >> _HALF, whole & ((1 << _HALF) - 1)
    place = (exponent.astype(np.int64) - 53 + _BIAS) * 2
    keys = np.concatenate([place, place + 1]) + offset
    parts = np.concatenate([lower, upper])
    unique, inverse = np.unique(keys, return_inverse=True)
    # Every part is below 2**27, so float64 weights add up exactly for fewer than 2**26 values at a time.
    sums = np.bincount(inverse, weights=parts.astype(np.float64), minlength=len(unique)).astype(np.int64)
    return unique, sums


def ordered_bits(values: Array) -> Bits:
    """The bits of float64 values as integers of the same order."""
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, bits ^ np.int64(0x7FFF_FFFF_FFFF_FFFF), bits)


def float_of_bits(ordered: Bits) -> Array:
    """The inverse of `ordered_bits`."""
    return np.where(ordered < 0, ordered ^ np.int64(0x7FFF_FFFF_FFFF_FFFF), ordered).view(np.float64)


@dataclass(frozen=True)
class Bins:
    """Counts of numbers by the leading bits of their ordered form, within given bins of the level above."""

    level: int = 0
    within: tuple[int, ...] | None = None
    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array) -> Cells:
        ordered = np.sort(ordered_bits(values[~np.isnan(values)]))
        if self.within is not None:
            ordered = ordered[np.isin(ordered >> _LEVELS[self.level - 1], self.within)]
        keys = ordered >> _LEVELS[self.level]
        starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1)) if len(keys) else np.array([], dtype=np.int64)
        ends = np.append(starts[1:], len(keys))[: len(starts)]
        return Cells.of_keys(ends - starts, keys[starts], ordered[starts], ordered[ends - 1])

    def result(self, cells: Cells) -> Cells:
        order = np.argsort(cells.key)
        return Cells.of_keys(cells.count[order], cells.key[order], cells.low[order], cells.high[order])


def quantiles(
    columns: tuple[str, ...], prepared: Any, fractions: Sequence[float]
) -> Generator[Want, Any, list[float] | None]:
    """Exact quantiles: for each fraction q the smallest value that at least q of all values do not exceed.

    Numpy calls it ``method="inverted_cdf"``. None if there is no value. At most four passes, mostly one or two.
    """
    cells: Cells = yield Want(columns, prepared, Bins())
    total = int(cells.count.sum())
    if total == 0:
        return None
    ranks = [max(1, math.ceil(Fraction(fraction) * total)) for fraction in fractions]
    targets = [_descend(cells, rank) for rank in ranks]
    for level in range(1, len(_LEVELS)):
        open_bins = tuple(sorted({target.key for target in targets if not target.resolved}))
        if not open_bins:
            break
        cells = yield Want(columns, prepared, Bins(level, open_bins))
        above = cells.key >> (_LEVELS[level - 1] - _LEVELS[level])
        targets = [
            target if target.resolved else _descend(cells, target.rank, above == target.key) for target in targets
        ]
    return [float(float_of_bits(np.array([target.low]))[0]) for target in targets]


@dataclass(frozen=True)
class _Target:
    """The bin that holds the value of a rank, and the rank inside it; resolved when the bin holds one value only."""

    key: int
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
    return _Target(int(cells.key[at]), rank - before, int(cells.low[at]), int(cells.high[at]))


@dataclass(frozen=True)
class Values:
    """The most frequent values of a column of texts with their counts: by count descending, then value ascending."""

    limit: int | None = None
    min_count: int = 1

    def cells(self, values: Array) -> Cells:
        codes, unique = pd.factorize(values[~is_missing(values)])
        counts = np.bincount(codes, minlength=len(unique)).astype(np.int64)
        return Cells.of_texts(counts, np.asarray(unique, dtype=object))

    def result(self, cells: Cells) -> list[tuple[str, int]]:
        pairs = zip(cells.text.tolist(), cells.count.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0].encode()))


@dataclass(frozen=True)
class Mode:
    """The most frequent number, the smallest of several."""

    limit: int | None = 1
    min_count: int = 1

    def cells(self, values: Array) -> Cells:
        keys, counts = np.unique(ordered_bits(values[~np.isnan(values)]), return_counts=True)
        return Cells.of_keys(counts.astype(np.int64), keys, keys, keys)

    def result(self, cells: Cells) -> float | None:
        return float(float_of_bits(cells.key[:1])[0]) if len(cells.key) else None


@dataclass(frozen=True)
class Sums:
    """Per category and fold the rows and the sum of the label in steps of 2**-16; of pairs from `pair_up`."""

    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array) -> Cells:
        table = pd.DataFrame({"text": values[0], "fold": values[1], "label": values[2]})
        grouped = table.groupby(["text", "fold"])["label"].agg(["size", "sum"]).reset_index()
        text = np.concatenate([grouped["text"].to_numpy(object)] * 2)
        fold = grouped["fold"].to_numpy(np.int64) * 2
        count = np.concatenate([grouped["size"].to_numpy(np.int64), grouped["sum"].to_numpy(np.int64)])
        key = np.concatenate([fold, fold + 1])
        return Cells(count, key, np.zeros_like(key), np.zeros_like(key), text)

    def result(self, cells: Cells) -> dict[str, dict[int, tuple[int, int]]]:
        """Category -> fold -> (rows, sum of the label in steps of 2**-16)."""
        found: dict[str, dict[int, list[int]]] = {}
        for text, key, count in zip(cells.text.tolist(), cells.key.tolist(), cells.count.tolist(), strict=True):
            found.setdefault(text, {}).setdefault(key // 2, [0, 0])[key % 2] = count
        return {
            text: {fold: (pair[0], pair[1]) for fold, pair in sorted(folds.items())} for text, folds in found.items()
        }
