"""DRIVER. Texts read as values of a kind in Spark: none that `pipeline.features.canonical` does not read the same."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.features import Kind
from pipeline.features.kinds import TEXTS_OF
from pipeline.preparation.quoting import column, quoted

TYPES: dict[str, T.DataType] = {"number": T.DoubleType(), "timestamp": T.TimestampType(), "boolean": T.BooleanType()}


def text_as(name: str, kind: Kind) -> Column:
    """A text column as a number, timestamp or boolean; null where it is none.

    The pattern stands beside the cast, since Spark's casts read more: ``08:15`` is then a time of the present day.
    """
    cast = F.expr(f"try_cast({quoted(name)} as {TYPES[kind].simpleString()})")
    return F.when(column(name).rlike(rf"\A(?:{TEXTS_OF[kind]})\z"), cast)


def read_type(type_: T.DataType, kind: Kind | None) -> T.DataType:
    """The type in which features read a column of a type: its own, unless it has to be cast."""
    as_text = kind in TYPES and isinstance(type_, T.StringType)
    decimal = kind == "number" and isinstance(type_, T.DecimalType)
    moment = kind == "timestamp" and isinstance(type_, (T.DateType, T.TimestampNTZType))
    return TYPES[str(kind)] if as_text or decimal or moment else type_


def read_as(name: str, type_: T.DataType, kind: Kind) -> Column | None:
    """A column as features read it; None if that is as it is."""
    if (wanted := read_type(type_, kind)) == type_:
        return None
    return text_as(name, kind) if isinstance(type_, T.StringType) else column(name).cast(wanted)


def number_of(name: str, type_: T.DataType) -> Column:
    """A column as doubles; null where it has a text that is no number."""
    return text_as(name, "number") if isinstance(type_, T.StringType) else column(name).cast("double")
