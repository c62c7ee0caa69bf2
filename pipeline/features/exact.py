"""ANYWHERE. Sums of float64 without any rounding error, so that mean and deviation are the same in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
_BITS = 53
"""Whole numbers below two to the so many are exact in a float64, and so are their sums in any order."""
LIMB = 32
_SERIES = 128
"""Limbs of a sum: 32 bits each of at most 1,024 before the point and 2 * 1,074 behind it, and some."""


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
        total, square = exact_sums(present)
        limbs = [*_limbs(total, 0, SMALLEST), *_limbs(square, _SERIES, 2 * SMALLEST)]
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
        total, square = _of_limbs(cells, 0, SMALLEST), _of_limbs(cells, _SERIES, 2 * SMALLEST)
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


def exact_sums(values: Array) -> tuple[Fraction, Fraction]:
    """The sum of finite float64 values and the sum of their squares, without rounding.

    Values are cut into digits, so short that sums of digits and of products of two of them are exact in float64
    (error-free extraction: S. M. Rump, T. Ogita, S. Oishi: Accurate floating-point summation, 2008; products as
    K. Ozaki and others: Error-free transformations of matrix multiplication, 2012). Magnitudes beyond `LARGEST` are
    squared as this one.
    """
    if (top := _top(values)) >= _HUGE:
        huge = np.abs(values) >= _HUGE
        scaled = sum((_sum(digit) for digit in _digits(values[huge] * _DOWN)), Fraction(0))
        rest, _ = exact_sums(np.where(huge, 0.0, values))
        return scaled / Fraction(_DOWN) + rest, exact_sums(np.clip(values, -LARGEST, LARGEST))[1]
    digits = list(_digits(values))
    total = sum(map(_sum, digits), Fraction(0))
    squared = digits if top <= LARGEST else list(_digits(np.clip(values, -LARGEST, LARGEST)))
    square = Fraction(0)
    for place, (one, unit) in enumerate(squared):
        for other, other_unit in squared[place:]:
            times = 1 if other is one else 2
            square += times * int(np.dot(one, other)) * Fraction(2) ** (unit + other_unit)
    return total, square


_Digit = tuple[Array, int]
"""Whole numbers, and the power of two that they are multiples of."""


def _digits(values: Array) -> Iterator[_Digit]:
    """Values below `_HUGE` as sums of digits, the leading ones first."""
    bits = (_BITS - len(values).bit_length()) // 2
    while (top := _top(values)) > 0:
        unit = max(math.frexp(top)[1] - bits, -SMALLEST)
        grid = math.ldexp(1.5, unit + _BITS - 1)
        leading = (values + grid) - grid
        yield _times_power(leading, -unit), unit
        values = values - leading


def _times_power(values: Array, power: int) -> Array:
    """Exactly; powers of two beyond a float64's are taken in two steps."""
    half = power // 2
    return values * 2.0**power if abs(power) < 1000 else values * 2.0**half * 2.0 ** (power - half)


def _sum(digit: _Digit) -> Fraction:
    numbers, unit = digit
    return int(numbers.sum()) * Fraction(2) ** unit


def _top(values: Array) -> float:
    return max(float(values.max()), -float(values.min())) if len(values) else 0.0


def _limbs(total: Fraction, first: int, behind: int) -> list[tuple[int, int]]:
    """Pairs of a key and a signed integer below 2**32, so that integer sums over cells have room.

    Args:
        total: a sum.
        first: the key of its lowest limb.
        behind: how many of its bits are behind the point, at most.
    """
    whole = int(total * (1 << behind))
    sign, rest, limbs = (-1 if whole < 0 else 1), abs(whole), []
    for place in range(_SERIES):
        if not rest:
            break
        rest, limb = rest >> LIMB, rest & ((1 << LIMB) - 1)
        if limb:
            limbs.append((first + place, sign * limb))
    return limbs


def _of_limbs(cells: Cells, first: int, behind: int) -> Fraction:
    where: Bits = np.flatnonzero((cells.key >= first) & (cells.key < first + _SERIES))
    pairs = zip(cells.key[where].tolist(), cells.count[where].tolist(), strict=True)
    return Fraction(sum(count << (LIMB * (key - first)) for key, count in pairs), 1 << behind)
