"""ANYWHERE. Metrics of predicted numbers, in the unit of the label.

Numbers of any size are added without rounding: each is cut into pieces of 24 bits, and pieces of the same place are
added apart. So the sums are the same to the bit in whatever order rows, tasks and ranks come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.binary import Sums

REGRESSION_METRICS = ("mae", "rmse", "r2")
GRID = 24
"""Cells per side of the picture of predicted against actual values."""

_BITS = 24
_LOWEST = -11
"""Place of the lowest piece: what is below 2**(24 * -11) counts as 0."""
_PIECES = 1 + math.ceil(1024 / _BITS) - _LOWEST
_QUANTITIES = 5
_ROWS, _NOT_FINITE, _EXACT = range(3)
_GRID_AT = _EXACT + _QUANTITIES * _PIECES


def exact_sum(values: Sums) -> Sums:
    """The sum of finite float64 values as pieces, exact for up to 2**29 values."""
    pieces = np.zeros(_PIECES)
    place, rest = np.frexp(values)[1] // _BITS, values.copy()
    for _ in range(4):  # 53 bits touch at most four pieces
        piece = np.ldexp(np.trunc(np.ldexp(rest, -_BITS * place)), _BITS * place)
        kept = place >= _LOWEST
        pieces += np.bincount(place[kept] - _LOWEST, piece[kept], minlength=_PIECES)
        rest, place = rest - piece, place - 1
    return pieces


@dataclass(frozen=True)
class Regression:
    """The measure of a regression label; see `pipeline.metrics.Measure`.

    Attributes:
        span: the values between which the picture of predicted against actual values is drawn; what lies beyond
            counts in its outermost cells.
    """

    span: tuple[float, float] | None = None

    def sums(self, label: ArrayLike, answer: ArrayLike, weight: ArrayLike | None = None) -> Sums:
        """What a batch adds to the sums.

        Args:
            label: actual value per row.
            answer: predicted value per row, in the same unit. One that is not finite makes all metrics NaN.
            weight: per row; by default 1.

        Returns:
            Rows and rows that are not finite; exact sums of weight, label, squared label, absolute and squared
            error; with a ``span`` the rows of each cell of the picture.
        """
        actual, predicted = np.asarray(label, np.float64), np.asarray(answer, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(actual**2) & np.isfinite((predicted - actual) ** 2)
        weight_ = np.ones(len(actual)) if weight is None else np.asarray(weight, np.float64)
        y, w, error = actual[finite], weight_[finite], (predicted - actual)[finite]
        terms = (w, w * y, w * y**2, w * np.abs(error), w * error**2)
        counts = [float(len(actual)), float(np.count_nonzero(~finite))]
        return np.concatenate([counts, *map(exact_sum, terms), self._cells(y, predicted[finite])])

    def _cells(self, actual: Sums, predicted: Sums) -> Sums:
        if self.span is None:
            return np.zeros(0)
        low, high = self.span
        places = [
            np.clip(np.floor((values - low) / (high - low) * GRID), 0, GRID - 1).astype(np.int64)
            for values in (actual, predicted)
        ]
        return np.bincount(places[0] * GRID + places[1], minlength=GRID**2).astype(np.float64)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Mean absolute error, root of the mean squared error, and the share of the variance that is explained.

        R2 is NaN where the label does not vary.
        """
        pieces = sums[_EXACT:_GRID_AT].reshape(_QUANTITIES, _PIECES)
        weight, label, squared_label, absolute, squared = (sum(map(Fraction, row), Fraction(0)) for row in pieces)
        if not weight or sums[_NOT_FINITE]:
            return dict.fromkeys(REGRESSION_METRICS, math.nan)
        variation = squared_label - label**2 / weight
        return {
            "mae": float(absolute / weight),
            "rmse": math.sqrt(squared / weight),
            "r2": float(1 - squared / variation) if variation > 0 else math.nan,
        }

    def rows(self, sums: Sums) -> int:
        """Rows that went into the sums."""
        return int(sums[_ROWS])

    def confusion(self, sums: Sums) -> list[list[int]]:
        """None: there are no classes."""
        return []

    def curves(self, sums: Sums) -> dict[str, list[list[float]]]:
        """``cells``: [actual, predicted, rows] of each cell that has rows, by its middle; ``span``: its ends."""
        if self.span is None:
            return {}
        low, high = self.span
        counts = sums[_GRID_AT:]
        middle = low + (np.arange(GRID) + 0.5) / GRID * (high - low)
        (filled,) = np.nonzero(counts)
        cells = np.column_stack([middle[filled // GRID], middle[filled % GRID], counts[filled]])
        return {"span": [[low, high]], "cells": cells.tolist()}
