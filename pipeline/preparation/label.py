"""DRIVER and EXECUTOR. The labels: which values are fit for their type, how they are encoded, weights of classes.

There may be one label, several of one type, or none (``config`` is None). Staged rows hold each in a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config.data import LabelConfig
from pipeline.config.section import number_text
from pipeline.errors import DataError
from pipeline.features.exact import Moments
from pipeline.features.kinds import Array, Raw
from pipeline.features.sketches import Fitting, ask
from pipeline.features.target import LABEL
from pipeline.preparation.casts import number_of, text_as
from pipeline.preparation.quoting import column as named

Checks = list[tuple[Column, str]]
_BINARY = ("0", "1")


def staged_labels(config: LabelConfig | None) -> dict[str, str]:
    """Column of the staged rows -> the raw label column that it is made of."""
    columns = config.columns if config else ()
    if len(columns) == 1:
        return {LABEL: columns[0]}
    return {f"{LABEL}_{number}": column for number, column in enumerate(columns)}


def label_values(frame: DataFrame, config: LabelConfig | None) -> list[Column]:
    """The columns of `staged_labels`: doubles, or names of classes; null where a value is neither."""
    if config is None:
        return []
    return [_value(frame, config, column).alias(staged) for staged, column in staged_labels(config).items()]


def _value(frame: DataFrame, config: LabelConfig, column: str) -> Column:
    raw, type_ = named(column), frame.schema[column].dataType
    if config.type == "multiclass":
        if isinstance(type_, (T.FractionalType,)):
            whole = raw.cast("decimal(38,0)")
            return F.when(raw == whole, whole.cast("string"))
        return raw.cast("string")
    number = number_of(column, type_)
    if isinstance(type_, T.StringType) and config.type == "binary":
        return F.coalesce(number, text_as(column, "boolean").cast("double"))
    return number


def label_checks(frame: DataFrame, config: LabelConfig | None) -> Checks:
    """Why a label is not fit; every unfit one has exactly one reason, which names its column."""
    if config is None:
        return []
    return [check for column in config.columns for check in _checks(frame, config, column)]


def _checks(frame: DataFrame, config: LabelConfig, column: str) -> Checks:
    label, value = named(column), _value(frame, config, column)
    is_fraction = isinstance(frame.schema[column].dataType, T.FractionalType)
    missing = label.isNull() | F.isnan(label) if is_fraction else label.isNull()
    present = ~missing
    name = f"label {column}"
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
        checks.append((fit & (value < config.min), f"{name} is below {number_text(config.min)}"))
    if config.max is not None:
        checks.append((fit & (value > config.max), f"{name} is above {number_text(config.max)}"))
    return checks


def counted_as(config: LabelConfig | None) -> dict[str, str]:
    """Staged label -> what its classes are counted under before their names; nothing where there are no classes."""
    if config is None or config.type == "regression":
        return {}
    labels = staged_labels(config)
    return {staged: f"{column}=" if len(labels) > 1 else "" for staged, column in labels.items()}


def classes_of(config: LabelConfig | None, class_counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Names of the classes in the order of their ids, with several labels of each (``late=0``); none for regression.

    Raises:
        DataError: more classes than `label.max_classes`.
    """
    if config is None or config.type == "regression":
        return ()
    if config.type == "binary":
        return tuple(f"{prefix}{name}" for prefix in counted_as(config).values() for name in _BINARY)
    names = config.classes or sorted({name for counts in class_counts.values() for name in counts}, key=_class_order)
    if len(names) > config.max_classes:
        raise DataError(
            f"label {config.columns[0]} has {len(names):,} classes; expected at most label.max_classes "
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


def fit_labels(config: LabelConfig | None) -> list[Fitting]:
    """One fit per label, which ends with the offset and divisor of a regression label."""
    return [_fit(config, staged) for staged in staged_labels(config)] if config else []


def _fit(config: LabelConfig, staged: str) -> Fitting:
    if config.scale == "none":
        return 0.0, 1.0
    moments = yield from ask((staged,), _LabelValues(staged), Moments())
    return moments.mean, moments.std or 1.0


@dataclass(frozen=True)
class _LabelValues:
    staged: str

    def __call__(self, raw: Raw) -> Array:
        return np.asarray(raw[self.staged])


@dataclass(frozen=True)
class LabelEncoder:
    """From the staged values of a label to those of the part files.

    Attributes:
        column: name of the label.
        staged: the column of staged rows that holds it.
        classes: names in the order of ids, for multiclass.
        offset, scale: the published regression label is ``(value - offset) / scale``.
    """

    column: str
    staged: str
    type: str
    classes: tuple[str, ...] = ()
    offset: float = 0.0
    scale: float = 1.0

    @property
    def dtype(self) -> str:
        """Of the label column."""
        return "int64" if self.type == "multiclass" else "float32"

    def __call__(self, staged: pa.Table) -> Array:
        column = staged.column(self.staged)
        if self.type == "multiclass":
            ids = {name: place for place, name in enumerate(self.classes)}
            encoded = column.combine_chunks().dictionary_encode()
            table = np.array([ids[name] for name in encoded.dictionary.to_pylist()], dtype=np.int64)
            return np.asarray(table[encoded.indices.to_numpy()])
        return np.asarray(((column.to_numpy() - self.offset) / self.scale).astype(np.float32))


def label_encoders(
    config: LabelConfig | None, classes: tuple[str, ...], units: Iterable[tuple[float, float]]
) -> tuple[LabelEncoder, ...]:
    """The encoder of each label.

    Args:
        config: the label section.
        classes: see `classes_of`.
        units: offset and divisor of each.
    """
    if config is None:
        return ()
    pairs = zip(staged_labels(config).items(), units, strict=True)
    return tuple(LabelEncoder(column, staged, config.type, classes, *unit) for (staged, column), unit in pairs)


def label_state(
    config: LabelConfig | None, labels: tuple[LabelEncoder, ...], class_counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """What inference needs to know of the labels, as JSON: how to undo the scaling, names and weights of classes.

    Of several labels every value is a list with one for each of them.
    """
    if config is None:
        return {}
    each = [_state(label, counted_as(config).get(label.staged, ""), class_counts["train"]) for label in labels]
    if len(each) == 1:
        return {"column": labels[0].column, "type": config.type, **each[0]}
    merged = {key: [state[key] for state in each] for key in each[0]}
    return {"columns": [label.column for label in labels], "type": config.type, **merged}


def _state(label: LabelEncoder, prefix: str, counts: Mapping[str, int]) -> dict[str, Any]:
    if label.type == "regression":
        return {"offset": label.offset, "scale": label.scale}
    classes = label.classes if label.type == "multiclass" else _BINARY
    own = {name: counts[f"{prefix}{name}"] for name in classes}
    return {"classes": list(classes), "class_weights": class_weights(classes, own)}
