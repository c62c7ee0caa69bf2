"""ANYWHERE. Vectors and images of a fixed shape, as they are: float32 numbers or uint8 bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config.features import VectorFeature
from pipeline.dataset import Column
from pipeline.errors import DataError
from pipeline.features.kinds import Array, Raw
from pipeline.features.lists import number_lists
from pipeline.features.sketches import Fitting

_LARGEST = 3.4e38
"""Larger magnitudes count as this one, so that float32 holds them."""


@dataclass(frozen=True)
class Vector:
    """An array of one shape per row; a missing one is all zero, and so is a missing number of one."""

    name: str
    column: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The encoded column."""
        return (Column(self.name, self.dtype, "vector", shape=self.shape),)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw column."""
        return (self.column,)

    def encode(self, raw: Raw) -> dict[str, Array]:
        """From the canonical raw column (`Lists`, or flat arrays and None) to one array of shape (rows, *shape)."""
        rows, width = number_lists(raw[self.column]), int(np.prod(self.shape))
        wrong = np.unique(rows.lengths[rows.present & (rows.lengths != width)])
        if len(wrong):
            raise DataError(f"column {self.column} has vectors of {wrong.tolist()} numbers; expected {width}")
        matrix = np.zeros((len(rows), width), dtype=self.dtype)
        matrix[rows.present] = self._typed(np.asarray(rows.items)).reshape(-1, width)
        return {self.name: matrix.reshape(len(rows), *self.shape)}

    def _typed(self, values: Array) -> Array:
        if values.dtype == self.dtype == "uint8":
            return values
        if self.dtype == "uint8" and not ((values >= 0) & (values <= 255) & (values == np.rint(values))).all():
            raise DataError(f"column {self.column} has values that are no bytes; expected whole numbers 0 to 255")
        if self.dtype == "float32":
            floats = values if values.dtype == np.float32 else values.astype(np.float64)
            values = np.clip(np.nan_to_num(floats), -_LARGEST, _LARGEST)
        return values.astype(self.dtype, copy=False)


def fit_vector(name: str, config: VectorFeature) -> Fitting:
    """Nothing to learn."""
    yield from ()
    return Vector(name, config.column or name, tuple(config.shape), config.dtype)
