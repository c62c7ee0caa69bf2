"""ANYWHERE. Encoded columns side by side, as the inputs of a model's forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset import DatasetSchema

Arrays = dict[str, npt.NDArray[Any]]


def model_inputs(encoded: Mapping[str, npt.NDArray[Any]], schema: DatasetSchema) -> Arrays:
    """The inputs of a model's forward, as numpy arrays.

    Args:
        encoded: encoded column name -> array, as `FittedFeatures.transform` gives it.
        schema: the dataset's.

    Returns:
        ``numeric`` float32 and ``categorical`` int64 (rows x columns), each vector feature under its name.
    """
    inputs: Arrays = {}
    if schema.numeric:
        inputs["numeric"] = np.column_stack([encoded[name] for name in schema.numeric]).astype(np.float32, copy=False)
    if schema.cardinalities:
        inputs["categorical"] = np.column_stack([encoded[name] for name in schema.cardinalities]).astype(np.int64)
    for name, shape in schema.vectors.items():
        inputs[name] = np.asarray(encoded[name]).reshape(-1, *shape)
    return inputs
