"""DRIVER. Which rows are fit to learn from: typed columns, and for each row the list of reasons to reject it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.features import ElapsedFeature, NumericFeature, VectorFeature
from pipeline.errors import DataError
from pipeline.features import Kind, raw_inputs
from pipeline.features.fitted import numbers_and_categories
from pipeline.preparation.casts import read_as, read_type
from pipeline.preparation.columns import OWN, typed_name
from pipeline.preparation.label import label_checks
from pipeline.preparation.quoting import column
from pipeline.preparation.read import check_once
from pipeline.preparation.rules import rule_checks
from pipeline.preparation.schema import unfit_plain_columns
from pipeline.preparation.split import split_checks
from pipeline.preparation.unfit_rules import check_patterns, unfit_rules
from pipeline.preparation.weight import weight_checks

REASONS = "_reasons"
"""The column of the quarantine that preparation adds itself; others are of the names of `OWN`."""
_NUMBERS = (T.NumericType, T.BooleanType)
_PLURALS = {
    "number": "numbers",
    "boolean": "truth values",
    "timestamp": "timestamps",
    "string": "texts",
    "vector": "an array of numbers or bytes",
    "strings": "an array of texts",
}


def check_columns(frame: DataFrame, config: PipelineConfig) -> None:
    """Every column that the configuration names must be there, once.

    Raises:
        ConfigError: a rule has a pattern that Java does not know.
        DataError: the missing, double and unusable columns, all at once, with those that there are.
    """
    check_patterns(config, frame)
    check_once(frame.columns, "the query", "give one an alias")
    offences = [
        f"column {name} has a name that preparation uses itself; expected another; give it an alias in the query"
        for name in frame.columns
        if name == REASONS or name.startswith(OWN)
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
    yield from unfit_plain_columns(config, frame.schema)
    yield from unfit_rules(
        config, frame, {one.name: read_type(one.dataType, kinds.get(one.name)) for one in frame.schema}
    )


def add_reasons(frame: DataFrame, config: PipelineConfig) -> DataFrame:
    """Append the columns of `typed_name`, and `REASONS`, null for rows that are fit.

    The query's own columns stay as they are: quarantine, splits and kept columns are of them. A value that a cast
    cannot read is a reason, never a silent null.
    """
    kinds = raw_inputs(config.features)
    checks: list[tuple[Column, str]] = [(column(name).isNull(), f"id {name} is null") for name in config.source.id]
    checks += label_checks(frame, config.label)
    checks += weight_checks(frame, config.label)
    checks += split_checks(frame, config)
    types = {field.name: field.dataType for field in frame.schema}
    typed = {name: cast for name, kind in kinds.items() if (cast := read_as(name, types[name], kind)) is not None}
    for name, cast in typed.items():
        checks.append((column(name).isNotNull() & cast.isNull(), f"{name} is not a {kinds[name]}"))
    values = {name: typed.get(name, column(name)) for name in frame.columns}
    checks += _merged_categories(values, types, config)
    types = {name: read_type(type_, kinds.get(name)) for name, type_ in types.items()}
    checks += _kind_checks(values, types, config)
    checks += _missing_checks(values, types, config)
    checks += rule_checks(config, types, values)
    # The list is made for rejected rows only: making it for every row costs more than all conditions.
    unfit = any_of([condition for condition, _ in checks])
    listed = F.array(*(F.when(condition, F.lit(reason)) for condition, reason in checks))
    # Unlike `array_compact` it leaves the code of the whole stage compiled; a reason that is given twice is one.
    reasons = F.array_except(listed, F.array(F.lit(None).cast("string")))
    return frame.select(
        "*",
        *(value.alias(typed_name(name)) for name, value in typed.items()),
        F.when(unfit, reasons).alias(REASONS),
    )


def any_of(conditions: Sequence[Column]) -> Column:
    """Whether one of the conditions is true, nulls left out.

    It is one flat expression: a chain of hundreds is deeper than the stacks of Spark's threads.
    """
    return F.greatest(F.lit(False), F.lit(False), *conditions)


def _kind_checks(
    values: dict[str, Column], types: dict[str, T.DataType], config: PipelineConfig
) -> Iterable[tuple[Column, str]]:
    """Values that Spark's type allows, and the kind does not."""
    for name, kind in raw_inputs(config.features).items():
        if kind == "boolean" and isinstance(types[name], T.NumericType):
            number = values[name].cast("double")
            yield ~(number.isin(0.0, 1.0) | F.isnan(number)), f"{name} is not a boolean"
    for name, feature in config.features.items():
        source = feature.column or name
        type_ = types[source]
        if not isinstance(feature, VectorFeature):
            continue
        width, value = math.prod(feature.shape), values[source]
        length = F.octet_length(value) if isinstance(type_, T.BinaryType) else F.size(value)
        yield value.isNotNull() & (length != width), f"{source} has not {width} numbers"
        if feature.dtype == "uint8" and isinstance(type_, T.ArrayType):
            yield F.exists(value, _is_no_byte), f"{source} has numbers that are no bytes"


def _merged_categories(
    values: dict[str, Column], types: dict[str, T.DataType], config: PipelineConfig
) -> Iterable[tuple[Column, str]]:
    """Categories that would become one, since the column is read as numbers too."""
    for name in numbers_and_categories(config.features):
        if isinstance(types[name], (T.LongType, T.DecimalType, T.StringType)):
            size = F.abs(values[name].cast("double"))
            beyond = (size >= 2.0**53) & (size < float("inf"))  # NaN is greater than all
            reason = "is a number and a category, and beyond 2**53, where numbers merge; copy the column in the query"
            yield beyond, f"{name} {reason}"


def _is_no_byte(item: Column) -> Column:
    return item.isNull() | (item < 0) | (item > 255) | (item != F.rint(item))


def _missing_checks(
    values: dict[str, Column], types: dict[str, T.DataType], config: PipelineConfig
) -> Iterable[tuple[Column, str]]:
    for name, feature in config.features.items():
        source = feature.column or name
        value, type_ = values[source], types[source]
        since = feature.since_column if isinstance(feature, ElapsedFeature) else None
        for needed in filter(None, (source, since)) if feature.missing == "reject" else ():
            missing = values[needed].isNull()
            if isinstance(types[needed], T.FractionalType):
                missing |= F.isnan(values[needed].cast("double"))
            yield missing, f"{needed} is missing"
        fractional = isinstance(type_, T.FractionalType)
        if isinstance(feature, NumericFeature) and feature.clip is None and fractional:
            yield F.abs(value.cast("double")) == float("inf"), f"{source} is infinite"
