"""DRIVER and EXECUTOR. The weights of rows, where `label.weight` names a column: which are fit, how they are staged.

Weights travel beside the labels: staged as doubles, published as the float32 column of the role ``weight``.
"""

from __future__ import annotations

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config.data import LabelConfig
from pipeline.preparation.casts import number_of
from pipeline.preparation.label import Checks, LabelEncoder
from pipeline.preparation.quoting import column

WEIGHT = "_pipeline_weight"
_LARGEST = float(np.finfo(np.float32).max)


def weight_values(frame: DataFrame, config: LabelConfig | None) -> list[Column]:
    """The staged column of weights, if there are any; null where a value is no number."""
    return [] if config is None or config.weight is None else [_value(frame, config.weight).alias(WEIGHT)]


def _value(frame: DataFrame, name: str) -> Column:
    return number_of(name, frame.schema[name].dataType)


def weight_checks(frame: DataFrame, config: LabelConfig | None) -> Checks:
    """Why a weight is not fit; every unfit one has exactly one reason."""
    if config is None or config.weight is None:
        return []
    raw, value = column(config.weight), _value(frame, config.weight)
    is_fraction = isinstance(frame.schema[config.weight].dataType, T.FractionalType)
    missing = raw.isNull() | F.isnan(raw) if is_fraction else raw.isNull()
    odd = value.isNull() | F.isnan(value) | (F.abs(value) > _LARGEST)
    name = f"weight {config.weight}"
    return [
        (missing, f"{name} is null"),
        (~missing & odd, f"{name} is not a finite number"),
        (~missing & ~odd & (value < 0), f"{name} is negative"),
    ]


def weight_encoders(config: LabelConfig | None) -> tuple[LabelEncoder, ...]:
    """To the column of the part files, unchanged."""
    return () if config is None or config.weight is None else (LabelEncoder(config.weight, WEIGHT, "regression"),)
