"""ANYWHERE. Rows and labels by category and fold, the labels added up without any rounding error.

A label is a whole number of `UNIT`ths, cut into limbs; limbs are added as integers, so that neither order nor size
nor number of the labels changes a sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.features.exact import LIMB, SMALLEST
from pipeline.features.kinds import Array
from pipeline.features.sketches import Cells
from pipeline.features.texts import Texts

UNIT = 1 << SMALLEST
_MASK = (1 << LIMB) - 1
_PLACES = 128
_ROWS = _PLACES - 1
"""The place that counts rows; those before it are limbs, of which a float64 reaches the 66th."""


@dataclass(frozen=True)
class Labelled:
    """Categories with a fold and a finite label for each row."""

    texts: Texts
    folds: Array
    labels: Array


@dataclass(frozen=True)
class LabelSums:
    """Per category and fold the rows and the exact sum of their labels; of `Labelled` rows."""

    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Labelled) -> Cells:
        folds = values.folds.astype(np.int64)
        most = int(folds.max()) + 1 if len(folds) else 1
        first = (values.texts.codes.astype(np.int64) * most + folds) * _PLACES
        limbs = [(first[rows] + places, amounts) for rows, places, amounts in _limbs_of(values.labels)]
        key, count = _added([*limbs, (first + _ROWS, np.ones_like(first))])
        # Carried, a limb is small however many rows there are, so that the engine can add up those of all files.
        carries = (key % _PLACES != _ROWS) & (count >> LIMB != 0)
        carried = count[carries] >> LIMB
        count[carries] &= _MASK
        key, count = _added([(key, count), (key[carries] + 1, carried)])
        text = values.texts.names[key // (most * _PLACES)]
        nothing = np.zeros_like(key)
        return Cells(count, key % (most * _PLACES), nothing, nothing, text)

    def result(self, cells: Cells) -> dict[str, dict[int, tuple[int, int]]]:
        """Category -> fold -> (rows, sum of the labels in `UNIT`ths)."""
        found: dict[str, dict[int, tuple[int, int]]] = {}
        for text, key, count in zip(cells.text.tolist(), cells.key.tolist(), cells.count.tolist(), strict=True):
            fold, place = divmod(key, _PLACES)
            folds = found.setdefault(text, {})
            rows, total = folds.get(fold, (0, 0))
            folds[fold] = (rows + count, total) if place == _ROWS else (rows, total + (count << (LIMB * place)))
        return found


def mean_of(total: int, rows: int) -> float:
    """The correctly rounded mean of labels whose sum is so many `UNIT`ths; 0 without rows."""
    return total / (rows * UNIT) if rows else 0.0


def _limbs_of(labels: Array) -> list[tuple[Array, Array, Array]]:
    """Rows, places and signed amounts of all limbs that are not 0: a float64 is a whole number below 2**53, shifted."""
    fraction, exponent = np.frexp(np.abs(labels))
    whole = np.ldexp(fraction, 53).astype(np.int64)
    place = exponent.astype(np.int64) - 53 + SMALLEST
    whole >>= np.maximum(-place, 0)  # subnormal numbers end in zeros
    limb, shift = np.divmod(np.maximum(place, 0), LIMB)
    low, high = (whole & _MASK) << shift, (whole >> LIMB) << shift
    sign = np.where(labels < 0, -1, 1)
    amounts = (low & _MASK, (low >> LIMB) + (high & _MASK), high >> LIMB)
    some = [(np.flatnonzero(amount), limb + more, sign * amount) for more, amount in enumerate(amounts)]
    return [(rows, places[rows], amount[rows]) for rows, places, amount in some]


def _added(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    keys, counts = (np.concatenate([part[which] for part in parts]) for which in range(2))
    added = pd.Series(counts).groupby(keys).sum()
    return added.index.to_numpy(np.int64), added.to_numpy(np.int64).copy()
