"""DRIVER. Rules as SQL conditions with reasons; those that repair a value are in `pipeline.features.repair`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import Column, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.data import RuleConfig
from pipeline.config.section import number_text
from pipeline.errors import DataError
from pipeline.features import Kind, canonical
from pipeline.features.repair import conditions_of
from pipeline.preparation.casts import text_as
from pipeline.preparation.quoting import column

Checks = Iterable[tuple[Column, str]]


def compared_as(type_: T.DataType) -> Kind | None:
    """As what bounds and lists of a rule see the values of a type; None if they cannot."""
    kinds: dict[Kind, tuple[type[T.DataType], ...]] = {
        "number": (T.NumericType,),
        "boolean": (T.BooleanType,),
        "string": (T.StringType,),
        "timestamp": (T.TimestampType, T.TimestampNTZType, T.DateType),
    }
    return next((kind for kind, types in kinds.items() if isinstance(type_, types)), None)


def rule_checks(config: PipelineConfig, types: Mapping[str, T.DataType], values: Mapping[str, Column]) -> Checks:
    """The violations of all rejecting rules; null and NaN violate ``not_null`` only.

    Args:
        config: has the rules.
        types: of columns as features read them.
        values: the same columns; patterns and lengths are of the texts that the query gives.
    """
    for rule in config.clean.rules:
        if rule.action == "reject":
            yield from _checks(rule, values[rule.column], types[rule.column], config.source.id)


def reasons_of(rule: RuleConfig) -> dict[str, str]:
    """For each condition of a rule the reason that it gives."""
    return {check: f"{rule.column} {text}" for check, text in conditions_of(rule).items()}


def _no_number(rule: RuleConfig) -> str:
    return f"{rule.column} is not a number"


def _checks(rule: RuleConfig, value: Column, type_: T.DataType, ids: Sequence[str]) -> Checks:
    is_fraction = isinstance(type_, (T.FloatType, T.DoubleType))
    present = value.isNotNull() & ~F.isnan(value) if is_fraction else value.isNotNull()
    text = column(rule.column).cast("string")
    number, bounded = value, present
    if isinstance(type_, T.StringType) and (rule.min is not None or rule.max is not None):
        number = text_as(rule.column, "number")
        bounded = present & ~F.isnan(number)
        yield present & number.isNull(), _no_number(rule)
    conditions = {
        "not_null": lambda: ~present,
        "min": lambda: bounded & (number < F.lit(rule.min)),
        "max": lambda: bounded & (number > F.lit(rule.max)),
        "allowed": lambda: present & ~_is_one_of(value, type_, rule.allowed or ()),
        "pattern": lambda: present & ~text.rlike(whole(str(rule.pattern))),
        "min_length": lambda: present & (F.length(text) < F.lit(rule.min_length)),
        "max_length": lambda: present & (F.length(text) > F.lit(rule.max_length)),
        "unique": lambda: present & (_rows_of(value, present, ids) > 1),
        "condition": lambda: ~F.coalesce(F.expr(str(rule.condition)), F.lit(True)),
    }
    for check, reason in reasons_of(rule).items():
        yield conditions[check](), reason


def _rows_of(value: Column, present: Column, ids: Sequence[str]) -> Column:
    """How many rows have the value. They all meet in one task; those without one need not, and may be many."""
    apart = F.when(~present, F.xxhash64(*map(column, ids))) if ids else F.lit(None)
    return F.count(F.lit(1)).over(Window.partitionBy(value, apart))


def whole(pattern: str) -> str:
    """The pattern of which a text is a match from its beginning to its end."""
    return rf"\A(?:{pattern})\z"


def _is_one_of(value: Column, type_: T.DataType, allowed: Sequence[Any]) -> Column:
    """Never null where the value is not: values of no kind that Spark would cast in its own way are compared."""
    if isinstance(type_, T.IntegralType) and all(isinstance(one, int) for one in allowed):
        return value.isin([int(one) for one in allowed])
    kind = compared_as(type_)
    assert kind is not None
    known = canonical(list(allowed), kind)
    if kind == "timestamp":
        moments = (F.lit(str(one)).cast("timestamp") for one in known)
        return reduce(or_, (value.cast("timestamp") == moment for moment in moments))
    if kind == "number":
        return value.cast("double").isin(known.tolist())
    return value.isin([bool(one) for one in known] if kind == "boolean" else known.tolist())


def limited_rules(config: PipelineConfig) -> dict[str, tuple[str, ...]]:
    """The rules with a limit of their own, by their place, and the reasons that they give."""
    return {
        str(number): (*reasons_of(rule).values(), _no_number(rule))
        for number, rule in enumerate(config.clean.rules)
        if rule.max_fraction is not None
    }


def check_rule_limits(rejected: Mapping[str, int], rows_in: int, config: PipelineConfig) -> None:
    """Refuse data of which one rule rejected too much.

    Args:
        rejected: rows by the place of a rule, of those of `limited_rules`.
        rows_in: all rows.
        config: has the rules.

    Raises:
        DataError: every such rule with fraction and limit.
    """
    offences = []
    for place, rows in rejected.items():
        rule = config.clean.rules[int(place)]
        fraction = rows / max(1, rows_in)
        if rule.max_fraction is not None and fraction > rule.max_fraction:
            offences.append(
                f"clean.rules.{place} ({', '.join(reasons_of(rule).values())}) rejects {fraction:.2%} of the rows; "
                f"expected at most its max_fraction {number_text(rule.max_fraction)}; mend the data or the rule"
            )
    if offences:
        raise DataError(*offences)
