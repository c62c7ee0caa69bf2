"""ANYWHERE. Sums of float64 without any rounding error, so that mean and deviation are the same in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.features.counted import Counted, counted
from pipeline.features.kinds import Array
from pipeline.features.sketches import Bits, Cells, float_of_bits, ordered_bits

LARGEST = 1e150
"""Larger magnitudes count as this one where they are squared, so that squares stay finite."""
SMALLEST = 1074
"""Every float64 is a whole multiple of two to the minus so much."""
_TOGETHER = 1 << 13
"""Numbers that are added up at a time: their digits stay in a core's cache, and are the longer the fewer they are."""
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

    def cells(self, values: Array | Counted) -> Cells:
        numbers = counted(values)
        if not len(numbers.values):
            none = np.array([], dtype=np.int64)
            return Cells.of_keys(none, none, none, none)
        total, square = exact_sums(numbers.values, numbers.counts)
        limbs = [*_limbs(total, 0, SMALLEST), *_limbs(square, _SERIES, 2 * SMALLEST)]
        extremes = ordered_bits(np.array([numbers.values.min(), numbers.values.max()]))
        keys = np.array([-1, *(key for key, _ in limbs)], dtype=np.int64)
        counts = np.array([numbers.present, *(limb for _, limb in limbs)], dtype=np.int64)
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


def exact_sums(values: Array, counts: Array | None = None) -> tuple[Fraction, Fraction]:
    """The sum of finite float64 values and the sum of their squares, without rounding.

    Values are cut into digits, so short that sums of digits and of products of two of them are exact in float64
    (error-free extraction: S. M. Rump, T. Ogita, S. Oishi: Accurate floating-point summation, 2008; products as
    K. Ozaki and others: Error-free transformations of matrix multiplication, 2012).

    Args:
        values: magnitudes beyond `LARGEST` are squared as this one.
        counts: how often each is added; once without. Fewer than 2**50 together.
    """
    total = square = 0
    for start in range(0, len(values), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        sums = _whole_sums(values[some], None if counts is None else counts[some])
        total, square = total + sums[0], square + sums[1]
    return Fraction(total, 1 << SMALLEST), Fraction(square, 1 << 2 * SMALLEST)


def _whole_sums(values: Array, counts: Array | None) -> tuple[int, int]:
    """The sum in units of the smallest float64, and that of the squares in units of its square."""
    bits = (_BITS - int(len(values) if counts is None else counts.sum()).bit_length()) // 2
    digits = [*_digits(values, bits)]
    weighted = digits if counts is None else [(digit * counts, unit) for digit, unit in digits]
    total = sum(int(digit.sum()) << unit + SMALLEST for digit, unit in weighted)
    if _top(values) > LARGEST:
        clipped = np.clip(values, -LARGEST, LARGEST)
        return total, _whole_sums(clipped, counts)[1]
    square = 0
    for place, (one, unit) in enumerate(weighted):
        for other, other_unit in digits[place:]:
            times = 1 if other is digits[place][0] else 2
            square += times * int(np.dot(one, other)) << unit + other_unit + 2 * SMALLEST
    return total, square


_Digit = tuple[Array, int]
"""Whole numbers, and the power of two that they are multiples of."""


def _digits(values: Array, bits: int) -> Iterator[_Digit]:
    """Values as sums of digits of so many bits, the leading ones first."""
    while (top := _top(values)) > 0:
        unit = max(math.frexp(top)[1] - bits, -SMALLEST)
        leading = np.trunc(_times_power(values, -unit))
        yield leading, unit
        values = values - _times_power(leading, unit)


def _times_power(values: Array, power: int) -> Array:
    """Exactly; powers of two beyond a float64's are taken in two steps."""
    half = power // 2
    return values * 2.0**power if abs(power) < 1000 else values * 2.0**half * 2.0 ** (power - half)


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
