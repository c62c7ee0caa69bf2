"""DRIVER. The label: which values are fit for its type, how it is encoded, and the weights of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config.data import LabelConfig
from pipeline.errors import DataError
from pipeline.features.exact import Moments
from pipeline.features.kinds import Array, Raw
from pipeline.features.sketches import Fitting, ask
from pipeline.features.target import LABEL

Checks = list[tuple[Column, str]]


def label_value(frame: DataFrame, config: LabelConfig) -> Column:
    """The label as a double, or as the name of its class; null where it is neither."""
    name = config.column.replace("`", "``")
    type_ = frame.schema[config.column].dataType
    if config.type == "multiclass":
        if isinstance(type_, (T.FractionalType,)):
            whole = F.col(f"`{name}`").cast("decimal(38,0)")
            return F.when(F.col(f"`{name}`") == whole, whole.cast("string"))
        return F.col(f"`{name}`").cast("string")
    if isinstance(type_, T.StringType) and config.type == "binary":
        return F.expr(f"coalesce(try_cast(`{name}` as double), cast(try_cast(`{name}` as boolean) as double))")
    if isinstance(type_, T.StringType):
        return F.expr(f"try_cast(`{name}` as double)")
    return F.expr(f"cast(`{name}` as double)")


def label_checks(frame: DataFrame, config: LabelConfig) -> Checks:
    """Why a label is not fit; every unfit one has exactly one reason."""
    label, value = F.col(f"`{config.column}`"), label_value(frame, config)
    is_fraction = isinstance(frame.schema[config.column].dataType, T.FractionalType)
    missing = label.isNull() | F.isnan(label) if is_fraction else label.isNull()
    present = ~missing
    name = f"label {config.column}"
    checks: Checks = [(missing, f"{name} is null")]
    if config.type == "binary":
        odd = value.isNull() | F.isnan(value) | ~value.isin(0.0, 1.0)
        return [*checks, (present & odd, f"{name} is not 0 or 1")]
    if config.type == "multiclass":
        checks.append((present & value.isNull(), f"{name} is not a whole number"))
        if config.classes is not None:
            checks.append((value.isNotNull() & ~value.isin(config.classes), f"{name} is not a known class"))
        return checks
    odd = value.isNull() | F.isnan(value) | (F.abs(value) == float("inf"))
    checks.append((present & odd, f"{name} is not a finite number"))
    fit = present & ~odd
    if config.min is not None:
        checks.append((fit & (value < config.min), f"{name} is below {config.min:g}"))
    if config.max is not None:
        checks.append((fit & (value > config.max), f"{name} is above {config.max:g}"))
    return checks


def classes_of(config: LabelConfig, class_counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Names of the classes in the order of their ids; none for regression.

    Raises:
        DataError: more classes than `label.max_classes`.
    """
    if config.type == "regression":
        return ()
    if config.type == "binary":
        return ("0", "1")
    names = config.classes or sorted({name for counts in class_counts.values() for name in counts}, key=_class_order)
    if len(names) > config.max_classes:
        raise DataError(
            f"label {config.column} has {len(names):,} classes; expected at most label.max_classes "
            f"{config.max_classes:,}; is it a regression label?"
        )
    return tuple(names)


def _class_order(name: str) -> tuple[int, float, str]:
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


def class_weights(classes: tuple[str, ...], counts: Mapping[str, int]) -> list[float]:
    """For each class rows / (classes * rows of the class), over train rows: 1 where classes are balanced."""
    total = sum(counts.values())
    return [total / (len(classes) * counts[name]) for name in classes]


def fit_label(config: LabelConfig) -> Fitting:
    """Offset and divisor of a regression label."""
    if config.scale == "none":
        return 0.0, 1.0
    moments = yield from ask((LABEL,), _LabelValues(), Moments())
    return moments.mean, moments.std or 1.0


@dataclass(frozen=True)
class _LabelValues:
    def __call__(self, raw: Raw) -> Array:
        return np.asarray(raw[LABEL])


@dataclass(frozen=True)
class LabelEncoder:
    """From staged label values to those of the part files.

    Attributes:
        classes: names in the order of ids, for multiclass.
        offset, scale: the published regression label is ``(value - offset) / scale``.
    """

    type: str
    classes: tuple[str, ...] = ()
    offset: float = 0.0
    scale: float = 1.0

    @property
    def dtype(self) -> str:
        """Of the label column."""
        return "int64" if self.type == "multiclass" else "float32"

    def __call__(self, column: pa.ChunkedArray) -> Array:
        if self.type == "multiclass":
            ids = {name: place for place, name in enumerate(self.classes)}
            encoded = column.combine_chunks().dictionary_encode()
            table = np.array([ids[name] for name in encoded.dictionary.to_pylist()], dtype=np.int64)
            return np.asarray(table[encoded.indices.to_numpy()])
        return np.asarray(((column.to_numpy() - self.offset) / self.scale).astype(np.float32))

    def state(self, config: LabelConfig, class_counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """What inference needs to know of the label, as JSON: how to undo the scaling, names, weights."""
        state: dict[str, Any] = {"column": config.column, "type": config.type}
        if self.type == "regression":
            return {**state, "offset": self.offset, "scale": self.scale}
        classes = classes_of(config, class_counts)
        return {**state, "classes": list(classes), "class_weights": class_weights(classes, class_counts["train"])}
