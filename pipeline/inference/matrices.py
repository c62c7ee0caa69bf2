"""DRIVER and EXECUTOR. Encoded inputs as one matrix, as estimators that know no embeddings take them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset import DatasetSchema
from pipeline.inference.inputs import Arrays

_WIDEST = 4096
"""Vectors that are wider in sum, such as photographs, take no part: columns of single pixels say nothing."""


def learnable(inputs: Arrays) -> Arrays:
    """The inputs that take part: all but vectors that are too wide."""
    plain = {name: values for name, values in inputs.items() if name in ("numeric", "categorical")}
    width = sum(math.prod(values.shape[1:]) for name, values in inputs.items() if name not in plain)
    return dict(inputs) if width <= _WIDEST else plain


def numbers_of(inputs: Arrays) -> npt.NDArray[np.float32]:
    """Numbers and the values of vectors side by side, as one float32 matrix."""
    parts = [values.reshape(len(values), -1) for name, values in learnable(inputs).items() if name != "categorical"]
    rows = len(next(iter(inputs.values())))
    return np.concatenate([np.empty((rows, 0), np.float32), *parts], axis=1, dtype=np.float32)


def columns_side_by_side(inputs: Arrays) -> npt.NDArray[np.float32]:
    """Numbers, then category ids, as one float32 matrix."""
    ids = [inputs["categorical"]] if "categorical" in inputs else []
    return np.concatenate([numbers_of(inputs), *ids], axis=1, dtype=np.float32)


@dataclass(frozen=True)
class OneHot:
    """Scaled numbers beside one indicator per category, as a sparse matrix."""

    mean: npt.NDArray[Any]
    scale: npt.NDArray[Any]
    first: npt.NDArray[np.int64]
    width: int

    @classmethod
    def fit(cls, inputs: Arrays, schema: DatasetSchema) -> OneHot:
        """Mean and standard deviation of the numbers, and where each category's indicators begin."""
        numeric = numbers_of(inputs).astype(np.float64)
        deviation = numeric.std(axis=0)
        counts = np.array([0, *schema.cardinalities.values()], np.int64)
        first = numeric.shape[1] + np.cumsum(counts)
        return cls(numeric.mean(axis=0), np.where(deviation > 0, deviation, 1.0), first[:-1], int(first[-1]))

    def __call__(self, inputs: Arrays) -> Any:
        """Rows x ``width`` in compressed rows."""
        from scipy.sparse import csr_matrix

        numeric = (numbers_of(inputs) - self.mean) / self.scale
        rows = len(numeric)
        ids = inputs.get("categorical", np.empty((rows, 0), np.int64)) + self.first
        positions = np.concatenate([np.tile(np.arange(numeric.shape[1]), (rows, 1)), ids], axis=1)
        values = np.concatenate([numeric, np.ones(ids.shape)], axis=1)
        starts = np.arange(rows + 1) * positions.shape[1]
        return csr_matrix((values.ravel(), positions.ravel(), starts), shape=(rows, self.width))
