"""ANYWHERE. Sums of float64 without any rounding error, so that mean and deviation are the same in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.features.kinds import Array
from pipeline.features.sketches import Bits, Cells, float_of_bits, ordered_bits

LARGEST = 1e150
"""Larger magnitudes count as this one where they are squared, so that squares stay finite."""
SMALLEST = 1074
"""Every float64 is a whole multiple of two to the minus so much."""
_HUGE, _DOWN = 2.0**960, 2.0**-200
LIMB = 32
_SERIES = 128
"""Limbs of a sum: 32 bits each of at most 2 * 1074 and some."""


@dataclass(frozen=True)
class Moments:
    """Count, sum, sum of squares and extremes of numbers, exactly; missing ones do not count."""

    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array) -> Cells:
        present = values[~np.isnan(values)]
        if not len(present):
            none = np.array([], dtype=np.int64)
            return Cells.of_keys(none, none, none, none)
        square = sum((exact_sum(term) for term in _square(present)), Fraction(0))
        limbs = [*_limbs(exact_sum(present), 0), *_limbs(square, _SERIES)]
        extremes = ordered_bits(np.array([present.min(), present.max()]))
        keys = np.array([-1, *(key for key, _ in limbs)], dtype=np.int64)
        counts = np.array([len(present), *(limb for _, limb in limbs)], dtype=np.int64)
        low, high = np.zeros_like(keys), np.zeros_like(keys)
        low[0], high[0] = extremes
        return Cells.of_keys(counts, keys, low, high)

    def result(self, cells: Cells) -> MomentsResult | None:
        at = np.flatnonzero(cells.key == -1)
        if not len(at):
            return None
        low, high = (float(float_of_bits(bits[at])[0]) for bits in (cells.low, cells.high))
        total, square = (_of_limbs(cells, first) for first in (0, _SERIES))
        return MomentsResult(int(cells.count[at[0]]), total, square, low, high)


@dataclass(frozen=True)
class MomentsResult:
    """What `Moments` gives; mean and population standard deviation are correctly rounded."""

    count: int
    total: Fraction
    square: Fraction
    min: float
    max: float

    @property
    def mean(self) -> float:
        """Sum by count."""
        return float(self.total / self.count)

    @property
    def std(self) -> float:
        """The root of the mean square distance from the exact mean; of magnitudes up to `LARGEST`."""
        largest = Fraction(LARGEST)
        mean = min(max(self.total / self.count, -largest), largest)
        return math.sqrt(float(max(Fraction(0), self.square / self.count - mean * mean)))

    def with_constant(self, value: float, count: int) -> MomentsResult:
        """The moments after ``count`` more numbers, all of them ``value``."""
        if not count:
            return self
        exact = Fraction(value)
        return MomentsResult(
            self.count + count,
            self.total + count * exact,
            self.square + count * exact * exact,
            min(self.min, value),
            max(self.max, value),
        )


def exact_sum(values: Array) -> Fraction:
    """The sum of finite float64 values without rounding.

    The leading bits of all values are cut off on one grid, on which a plain sum is exact, until nothing is left:
    error-free extraction (S. M. Rump, T. Ogita, S. Oishi: Accurate floating-point summation, 2008).
    """
    total, top = Fraction(0), _top(values)
    if top >= _HUGE:
        huge = np.abs(values) >= _HUGE
        total, values = exact_sum(values[huge] * _DOWN) / Fraction(_DOWN), np.where(huge, 0.0, values)
        top = _top(values)
    room = max(1, len(values)).bit_length()
    while top > 0:
        grid = math.ldexp(1.0, math.frexp(top)[1] + room)
        leading = (values + grid) - grid
        total += Fraction(float(leading.sum()))
        values = values - leading
        top = _top(values)
    return total


def _top(values: Array) -> float:
    return max(float(values.max()), -float(values.min())) if len(values) else 0.0


def _square(values: Array) -> tuple[Array, Array, Array]:
    """The square of x as an exact sum of three float64, for magnitudes between 1e-140 and 1e150 (T. J. Dekker 1971)."""
    values = np.clip(values, -LARGEST, LARGEST)
    high = values * 134217729.0
    high = high - (high - values)
    low = values - high
    return high * high, 2.0 * high * low, low * low


def _limbs(total: Fraction, first: int) -> list[tuple[int, int]]:
    """Pairs of a key and a signed integer below 2**32, so that integer sums over cells have room."""
    whole = int(total * (1 << SMALLEST))
    sign, rest, limbs = (-1 if whole < 0 else 1), abs(whole), []
    for place in range(_SERIES):
        if not rest:
            break
        rest, limb = rest >> LIMB, rest & ((1 << LIMB) - 1)
        if limb:
            limbs.append((first + place, sign * limb))
    return limbs


def _of_limbs(cells: Cells, first: int) -> Fraction:
    where: Bits = np.flatnonzero((cells.key >= first) & (cells.key < first + _SERIES))
    pairs = zip(cells.key[where].tolist(), cells.count[where].tolist(), strict=True)
    return Fraction(sum(count << (LIMB * (key - first)) for key, count in pairs), 1 << SMALLEST)
