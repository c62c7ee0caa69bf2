"""ANYWHERE. The interval that a number lies in, as a category."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config.features import BucketFeature
from pipeline.dataset import Column
from pipeline.features.categorical import FIRST, NULL
from pipeline.features.kinds import Array, Raw
from pipeline.features.numeric import Finite, fit_fill
from pipeline.features.quantiles import quantiles
from pipeline.features.sketches import Fitting, side_by_side


@dataclass(frozen=True)
class Bucket:
    """1 missing, 3 below the first boundary, 4 from it on...

    Attributes:
        fill: the number that a null stands for; without it null has id 1.
    """

    name: str
    column: str
    boundaries: tuple[float, ...] = ()
    fill: float | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, "int32", "categorical", cardinality=FIRST + 1 + len(self.boundaries)),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    def measured(self, raw: Raw) -> Array:
        """The number itself, float64 with NaN."""
        return np.asarray(raw[self.column])

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column to ids."""
        values = raw[self.column]
        values = np.where(np.isnan(values), np.nan if self.fill is None else self.fill, values)
        ids = FIRST + np.searchsorted(np.array(self.boundaries), values, side="right")
        return {self.name: np.where(np.isnan(values), NULL, ids).astype(np.int32)}


def fit_bucket(name: str, config: BucketFeature) -> Fitting:
    """Boundaries as given, or the quantiles of the train rows that cut them into equal parts; what null stands for."""
    draft = Bucket(name, config.column or name)
    fill = fit_fill(draft.inputs, Finite(draft.column), config.missing, draft.column)
    boundaries, found = yield from side_by_side([_fit_boundaries(draft, config), fill])
    return Bucket(name, draft.column, boundaries, found)


def _fit_boundaries(draft: Bucket, config: BucketFeature) -> Fitting:
    if config.boundaries is not None:
        return tuple(config.boundaries)
    count = config.quantiles or 2
    found = yield from quantiles(draft.inputs, draft.measured, [part / count for part in range(1, count)])
    return tuple(sorted(set(found or ())))
