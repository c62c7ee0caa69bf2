"""ANYWHERE. Vectors and images of a fixed shape, as they are: float32 numbers or uint8 bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config.features import VectorFeature
from pipeline.dataset import Column
from pipeline.errors import DataError
from pipeline.features.kinds import Array, Raw
from pipeline.features.sketches import Fitting


@dataclass(frozen=True)
class Vector:
    """An array of one shape per row; a missing one is all zero."""

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
        """From the canonical raw column (flat arrays, or None) to one array of shape (rows, *shape)."""
        rows, width = raw[self.column], int(np.prod(self.shape))
        matrix = np.zeros((len(rows), width), dtype=self.dtype)
        wrong = {len(row) for row in rows if row is not None and len(row) != width}
        if wrong:
            raise DataError(f"column {self.column} has vectors of {sorted(wrong)} numbers; expected {width}")
        present = np.array([row is not None for row in rows], dtype=bool)
        if present.any():
            values = np.stack(list(rows[present]))
            if self.dtype == "uint8" and not ((values >= 0) & (values <= 255) & (values == np.rint(values))).all():
                raise DataError(f"column {self.column} has values that are no bytes; expected whole numbers 0 to 255")
            if self.dtype == "float32":
                values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=3.4e38, neginf=-3.4e38)
            matrix[present] = values.astype(self.dtype)
        return {self.name: matrix.reshape(len(rows), *self.shape)}


def fit_vector(name: str, config: VectorFeature) -> Fitting:
    """Nothing to learn."""
    yield from ()
    return Vector(name, config.column or name, tuple(config.shape), config.dtype)
