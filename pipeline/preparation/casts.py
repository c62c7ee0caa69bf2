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


def number_of(name: str, type_: T.DataType) -> Column:
    """A column as doubles; null where it has a text that is no number."""
    return text_as(name, "number") if isinstance(type_, T.StringType) else column(name).cast("double")
