"""DRIVER. What rules say that could not be applied, or never would be: found before a row is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.data import RuleConfig
from pipeline.errors import ConfigError, DataError
from pipeline.features import Kind, canonical, raw_inputs
from pipeline.preparation.rules import compared_as, whole
from pipeline.preparation.session import spark_errors

_USE_CONDITION = "use a condition, in SQL"


def check_patterns(config: PipelineConfig, frame: DataFrame) -> None:
    """Refuse patterns that Java does not know, which matches them.

    Raises:
        ConfigError: all of them, with what Java says.
    """
    java = cast(Any, frame.sparkSession._jvm).java.util.regex.Pattern
    offences = []
    for number, rule in enumerate(config.clean.rules):
        try:
            for pattern in (rule.pattern or "", whole(rule.pattern or "")):
                java.compile(pattern)
        except IllegalArgumentException as error:
            said = str(error).splitlines()[0]
            offences.append(
                f"clean.rules.{number}.pattern {rule.pattern} is no regular expression of Java: {said}; expected one "
                "that Java takes; write what other dialects have in its way"
            )
    if offences:
        raise ConfigError(*offences)


def unfit_rules(config: PipelineConfig, frame: DataFrame, types: Mapping[str, T.DataType]) -> Iterator[str]:
    """What is wrong with rules of columns that are all there, one sentence each.

    Args:
        config: has the rules.
        frame: the rows of the query.
        types: of its columns as features read them.
    """
    kinds = raw_inputs(config.features)
    for number, rule in enumerate(config.clean.rules):
        if rule.action == "reject":
            offences = _unfit_reject(rule, types[rule.column])
        else:
            offences = _unfit_repair(rule, kinds.get(rule.column))
        yield from (f"clean.rules.{number} {offence}" for offence in offences)
        if rule.condition is not None:
            try:
                with spark_errors(f"clean.rules.{number}.condition"):
                    frame.where(rule.condition)
            except DataError as error:
                yield from error.offences


def _bounds(rule: RuleConfig) -> list[str]:
    return [name for name in ("min", "max") if getattr(rule, name) is not None]


def _unfit_reject(rule: RuleConfig, type_: T.DataType) -> Iterator[str]:
    kind, what = compared_as(type_), f"for column {rule.column} of type {type_.simpleString()}"
    if (bounds := _bounds(rule)) and kind not in ("number", "string"):
        yield f"has {bounds[0]} {what}; expected a column of numbers; {_USE_CONDITION}"
    texts = [name for name in ("pattern", "min_length", "max_length") if getattr(rule, name) is not None]
    if texts and isinstance(type_, (T.FloatType, T.DoubleType)):
        yield f"has {texts[0]} {what}, whose texts differ between versions of Java; expected min, max or allowed"
    if rule.allowed is not None and kind is None:
        yield f"has allowed {what}; expected a column of single values; {_USE_CONDITION}"
    elif rule.allowed is not None and kind is not None:
        yield from _unfit_values(rule.allowed, rule.column, kind)


def _unfit_values(values: Any, column: str, kind: Kind) -> Iterator[str]:
    for value in values:
        try:
            canonical([value], kind)
        except DataError:
            yield f"has {value!r} for {column}, which is read as {kind}s; expected {kind}s"


def _unfit_repair(rule: RuleConfig, kind: Kind | None) -> Iterator[str]:
    lengths = [name for name in ("min_length", "max_length") if getattr(rule, name) is not None]
    if kind not in ("number", "boolean", "string"):
        yield (
            f"changes column {rule.column}, of which no feature reads numbers or texts; "
            "expected a column of such a feature, no times and no lists; use action: reject"
        )
    elif kind == "string" and (bounds := _bounds(rule)):
        yield f"has {bounds[0]} for {rule.column}, which features read as texts; expected allowed or lengths"
    elif kind != "string" and lengths:
        yield f"has {lengths[0]} for {rule.column}, which features read as numbers; expected min, max or allowed"
    elif kind != "string":
        values = [*(rule.allowed or ()), *([] if rule.default is None else [rule.default])]
        yield from _unfit_values(values, rule.column, "number")
