"""DRIVER. Which rows are fit to learn from: typed columns, and for each row the list of reasons to reject it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.data import NumericFeature, RuleConfig
from pipeline.errors import DataError
from pipeline.features import Kind, raw_inputs

REASONS = "_reasons"
_NUMBERS = (T.NumericType, T.BooleanType)
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
    yield "label.column", config.label.column
    if config.split.key:
        yield "split.key", config.split.key
    yield from ((f"clean.rules.{number}", rule.column) for number, rule in enumerate(config.clean.rules))
    yield from (("dataset.keep", name) for name in config.dataset.keep)


def _unusable_types(frame: DataFrame, config: PipelineConfig) -> Iterable[str]:
    accepted: dict[Kind, tuple[type[T.DataType], ...]] = {
        "number": (*_NUMBERS, T.StringType),
        "boolean": (*_NUMBERS, T.StringType),
        "timestamp": (T.TimestampType, T.TimestampNTZType, T.DateType, T.StringType),
        "string": (T.AtomicType,),
    }
    for name, kind in raw_inputs(config.features).items():
        type_ = frame.schema[name].dataType
        if not isinstance(type_, accepted[kind]):
            yield f"column {name} has type {type_.simpleString()}; expected a {kind}; cast it in the query"


def add_reasons(frame: DataFrame, config: PipelineConfig) -> DataFrame:
    """Cast feature columns to their kinds and append `REASONS`, empty for rows that are fit.

    A value that a cast cannot read is a reason, never a silent null.
    """
    kinds = raw_inputs(config.features)
    checks: list[tuple[Column, str]] = [
        (F.col(f"`{name}`").isNull(), f"id {name} is null") for name in config.source.id
    ]
    checks += _label_checks(frame, config)
    typed = {}
    for name in frame.columns:
        column = F.col(f"`{name}`")
        cast = _cast(frame.schema[name].dataType, kinds.get(name))
        if cast is not None and name not in config.source.id:
            typed[name] = F.expr(f"try_cast(`{name.replace('`', '``')}` as {cast})")
            checks.append((column.isNotNull() & typed[name].isNull(), f"{name} is not a {kinds[name]}"))
    values = {name: typed.get(name, F.col(f"`{name}`")) for name in frame.columns}
    checks += _missing_checks(values, frame, config)
    checks += [check for rule in config.clean.rules for check in _rule_checks(rule, values[rule.column])]
    reasons = F.array(*(F.when(condition, F.lit(reason)) for condition, reason in checks))
    return frame.select(
        *(value.alias(name) for name, value in values.items()),
        F.array_compact(reasons).alias(REASONS),
    )


def _cast(type_: T.DataType, kind: Kind | None) -> str | None:
    if kind in ("number", "timestamp", "boolean") and isinstance(type_, T.StringType):
        return _CASTS[kind]
    if kind == "number" and isinstance(type_, T.DecimalType):
        return "double"
    if kind == "timestamp" and isinstance(type_, (T.DateType, T.TimestampNTZType)):
        return "timestamp"
    return None


def _label_checks(frame: DataFrame, config: PipelineConfig) -> list[tuple[Column, str]]:
    name = config.label.column
    label = F.col(f"`{name}`")
    number = label_number(frame, config)
    return [
        (label.isNull() | (number.isNotNull() & F.isnan(number)), f"label {name} is null"),
        (
            label.isNotNull() & (number.isNull() | (~number.isin(0.0, 1.0) & ~F.isnan(number))),
            f"label {name} is not 0 or 1",
        ),
    ]


def label_number(frame: DataFrame, config: PipelineConfig) -> Column:
    """The label as a double; null where it is not one. Texts ``true`` and ``false`` are 1 and 0."""
    name = config.label.column.replace("`", "``")
    if isinstance(frame.schema[config.label.column].dataType, T.StringType):
        return F.expr(f"coalesce(try_cast(`{name}` as double), cast(try_cast(`{name}` as boolean) as double))")
    return F.expr(f"cast(`{name}` as double)")


def _missing_checks(
    values: dict[str, Column], frame: DataFrame, config: PipelineConfig
) -> Iterable[tuple[Column, str]]:
    for name, feature in config.features.items():
        if not isinstance(feature, NumericFeature):
            continue
        column = feature.column or name
        number = values[column].cast("double")
        if feature.missing == "reject":
            yield number.isNull() | F.isnan(number), f"{column} is missing"
        if feature.clip is None and isinstance(frame.schema[column].dataType, (T.FractionalType, T.StringType)):
            yield F.abs(number) == float("inf"), f"{column} is infinite"


def _rule_checks(rule: RuleConfig, value: Column) -> Iterable[tuple[Column, str]]:
    """The violations of a rule; null and NaN violate ``not_null`` only."""
    present = value.isNotNull() & (value.cast("string") != "NaN")
    if rule.not_null:
        yield ~F.coalesce(present, F.lit(False)), f"{rule.column} is null"
    if rule.min is not None:
        yield present & (value < rule.min), f"{rule.column} is below {rule.min:g}"
    if rule.max is not None:
        yield present & (value > rule.max), f"{rule.column} is above {rule.max:g}"
    if rule.allowed is not None:
        yield present & ~value.isin(rule.allowed), f"{rule.column} is not an allowed value"
