"""DRIVER. Which rows are fit to learn from: typed columns, and for each row the list of reasons to reject it."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.features import ElapsedFeature, NumericFeature, VectorFeature
from pipeline.errors import DataError
from pipeline.features import Kind, raw_inputs
from pipeline.preparation.label import label_checks
from pipeline.preparation.rules import rule_checks
from pipeline.preparation.split import split_checks
from pipeline.preparation.weight import weight_checks

REASONS = "_reasons"
_NUMBERS = (T.NumericType, T.BooleanType)
_PLURALS = {
    "number": "numbers",
    "boolean": "truth values",
    "timestamp": "timestamps",
    "string": "texts",
    "vector": "an array of numbers or bytes",
    "strings": "an array of texts",
}
_CASTS = {"number": "double", "timestamp": "timestamp", "boolean": "boolean"}


def check_columns(frame: DataFrame, config: PipelineConfig) -> None:
    """Every column that the configuration names must be there, once.

    Raises:
        DataError: the missing, double and unusable columns, all at once, with those that there are.
    """
    offences = [
        f"column {name} is given {frame.columns.count(name)} times by the query; expected once; give one an alias"
        for name in dict.fromkeys(frame.columns)
        if frame.columns.count(name) > 1
    ]
    for where, name in _named_columns(config):
        if name not in frame.columns:
            near = difflib.get_close_matches(name, frame.columns, n=1)
            hint = f"did you mean {near[0]}?" if near else "add it to the query"
            offences.append(
                f"{where} is column {name}, which is missing; expected one of {', '.join(frame.columns)}; {hint}"
            )
    if not offences:
        offences = list(_unusable_types(frame, config))
    if offences:
        raise DataError(*offences)


def _named_columns(config: PipelineConfig) -> Iterable[tuple[str, str]]:
    yield from (("source.id", name) for name in config.source.id)
    yield from ((f"features.{name}", feature.column or name) for name, feature in config.features.items())
    for name, feature in config.features.items():
        if isinstance(feature, ElapsedFeature) and feature.since_column:
            yield f"features.{name}.since_column", feature.since_column
    yield from (("label.column", name) for name in config.labels)
    if config.weight is not None:
        yield "label.weight", config.weight
    if config.split.key:
        yield "split.key", config.split.key
    yield from ((f"clean.rules.{number}", rule.column) for number, rule in enumerate(config.clean.rules))
    yield from (("dataset.keep", name) for name in config.dataset.keep)
    if config.clean.keep is not None:
        yield "clean.keep", config.clean.keep.split(" by ", 1)[1].strip()


def _unusable_types(frame: DataFrame, config: PipelineConfig) -> Iterable[str]:
    accepted: dict[Kind, tuple[type[T.DataType], ...]] = {
        "number": (*_NUMBERS, T.StringType),
        "boolean": (*_NUMBERS, T.StringType),
        "timestamp": (T.TimestampType, T.TimestampNTZType, T.DateType, T.StringType),
        "string": (T.AtomicType,),
        "vector": (T.BinaryType,),
        "strings": (),
    }
    elements: dict[Kind, type[T.DataType]] = {"vector": T.NumericType, "strings": T.StringType}
    kinds = raw_inputs(config.features)
    for name, kind in kinds.items():
        type_ = frame.schema[name].dataType
        element = type_.elementType if isinstance(type_, T.ArrayType) else None
        if not isinstance(type_, accepted[kind]) and not isinstance(element, elements.get(kind, ())):
            yield f"column {name} has type {type_.simpleString()}; expected {_PLURALS[kind]}; cast it in the query"
    weight = frame.schema[config.weight].dataType if config.weight is not None else T.DoubleType()
    if not isinstance(weight, (*_NUMBERS, T.StringType)):
        yield f"label.weight {config.weight} has type {weight.simpleString()}; expected numbers; cast it in the query"
    for number, rule in enumerate(config.clean.rules):
        if rule.action != "reject" and kinds.get(rule.column) in (None, "vector", "strings"):
            yield (
                f"clean.rules.{number} changes column {rule.column}, of which no feature reads single values; "
                "expected a column of a feature, no lists; use action: reject"
            )


def add_reasons(frame: DataFrame, config: PipelineConfig) -> DataFrame:
    """Cast feature columns to their kinds and append `REASONS`, null for rows that are fit.

    A value that a cast cannot read is a reason, never a silent null.
    """
    kinds = raw_inputs(config.features)
    checks: list[tuple[Column, str]] = [
        (F.col(f"`{name}`").isNull(), f"id {name} is null") for name in config.source.id
    ]
    checks += label_checks(frame, config.label)
    checks += weight_checks(frame, config.label)
    checks += split_checks(config)
    typed = {}
    for name in frame.columns:
        column = F.col(f"`{name}`")
        cast = _cast(frame.schema[name].dataType, kinds.get(name))
        if cast is not None and name not in config.source.id:
            typed[name] = F.expr(f"try_cast(`{name.replace('`', '``')}` as {cast})")
            checks.append((column.isNotNull() & typed[name].isNull(), f"{name} is not a {kinds[name]}"))
    values = {name: typed.get(name, F.col(f"`{name}`")) for name in frame.columns}
    checks += _missing_checks(values, frame, config)
    checks += rule_checks(config, frame, values)
    # The list is made for rejected rows only: making it for every row costs more than all conditions.
    unfit = reduce(operator.or_, (F.coalesce(condition, F.lit(False)) for condition, _ in checks))
    listed = F.array(*(F.when(condition, F.lit(reason)) for condition, reason in checks))
    # Unlike `array_compact` it leaves the code of the whole stage compiled; a reason that is given twice is one.
    reasons = F.array_except(listed, F.array(F.lit(None).cast("string")))
    return frame.select(
        *(value.alias(name) for name, value in values.items()),
        F.when(unfit, reasons).alias(REASONS),
    )


def _cast(type_: T.DataType, kind: Kind | None) -> str | None:
    if kind in ("number", "timestamp", "boolean") and isinstance(type_, T.StringType):
        return _CASTS[kind]
    if kind == "number" and isinstance(type_, T.DecimalType):
        return "double"
    if kind == "timestamp" and isinstance(type_, (T.DateType, T.TimestampNTZType)):
        return "timestamp"
    return None


def _missing_checks(
    values: dict[str, Column], frame: DataFrame, config: PipelineConfig
) -> Iterable[tuple[Column, str]]:
    for name, feature in config.features.items():
        column = feature.column or name
        value, type_ = values[column], frame.schema[column].dataType
        if isinstance(feature, VectorFeature):
            width = math.prod(feature.shape)
            length = F.octet_length(value) if isinstance(type_, T.BinaryType) else F.size(value)
            yield value.isNotNull() & (length != width), f"{column} has not {width} numbers"
        elif getattr(feature, "missing", None) == "reject":
            number = value.cast("double") if isinstance(type_, T.FractionalType) else None
            missing = value.isNull() if number is None else value.isNull() | F.isnan(number)
            yield missing, f"{column} is missing"
        fractional = isinstance(type_, (T.FractionalType, T.StringType))
        if isinstance(feature, NumericFeature) and feature.clip is None and fractional:
            yield F.abs(value.cast("double")) == float("inf"), f"{column} is infinite"
