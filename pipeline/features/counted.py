"""ANYWHERE. A column of numbers with counts: what is measured of a number that many rows have is measured once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.features.kinds import Array


@dataclass(frozen=True, eq=False)
class Counted:
    """The numbers of a column, in any order; what sketches of numbers take.

    Attributes:
        values: float64 without NaN; a number may stand there twice.
        missing: rows that have none.
        counts: int64, how many rows have each; None where every one stands for a row.
    """

    values: Array
    missing: int
    counts: Array | None = None

    @property
    def present(self) -> int:
        """Rows that have a number."""
        return len(self.values) if self.counts is None else int(self.counts.sum())

    def where(self, chosen: Array) -> Counted:
        """Some of the numbers, by a mask or by their places."""
        return Counted(self.values[chosen], self.missing, None if self.counts is None else self.counts[chosen])

    def rows_by(self, places: Array, size: int) -> Array:
        """How many rows there are at each place from 0 up to ``size``, where each number has a place."""
        rows = np.bincount(places, weights=self.counts, minlength=size)  # below 2**53 a sum of whole weights is exact
        return rows.astype(np.int64, copy=False)


def counted(values: Array | Counted, counts: Array | None = None) -> Counted:
    """Canonical numbers, NaN where there is none, each of so many rows; nothing is done twice."""
    if isinstance(values, Counted):
        return values
    rows = Counted(values, 0, counts)
    found = rows.where(~np.isnan(values))
    return replace(found, missing=rows.present - found.present)
