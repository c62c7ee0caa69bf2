"""DRIVER. Columns as Spark hashes them for splits, files and sums of ids: the same on every version of Java."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.preparation.quoting import column


def hashable(frame: DataFrame, names: Sequence[str]) -> list[Column]:
    """For each column two to hash: whether it is null, which hashes ignore, and its value.

    Values are hashed as texts, so that int and bigint agree; but fractions as their bits, since Java 19 writes other
    digits than 17 does.
    """
    parts = ((column(name), frame.schema[name].dataType) for name in names)
    return [part for value, type_ in parts for part in (value.isNull(), _value(value, type_))]


def _value(value: Column, type_: T.DataType) -> Column:
    if isinstance(type_, (T.FloatType, T.DoubleType)):
        number = value.cast("double")
        return F.when(number == 0, F.lit(0.0)).otherwise(number)  # the sign of a zero is no information
    return _flat(value, type_) if _is_nested(type_) else value.cast("string")


def _is_nested(type_: T.DataType) -> bool:
    return isinstance(type_, (T.ArrayType, T.StructType, T.MapType))


def _flat(value: Column, type_: T.DataType) -> Column:
    """Nested values with the entries of maps, which Spark does not hash, as lists of them."""
    if isinstance(type_, T.ArrayType):
        return F.transform(value, lambda item: _flat(item, type_.elementType))
    if isinstance(type_, T.MapType):
        entries = T.ArrayType(T.StructType().add("key", type_.keyType).add("value", type_.valueType))
        return _flat(F.map_entries(value), entries)
    if isinstance(type_, T.StructType):
        return F.struct(*(_flat(value.getField(field.name), field.dataType) for field in type_))
    return value


def id_checks(frame: DataFrame, ids: Sequence[str]) -> tuple[Column, Column]:
    """Two independent 64-bit hashes of a row's id; their sums over a table are those of its multiset of ids."""
    columns = hashable(frame, ids)
    return F.xxhash64(F.lit(1), *columns), F.xxhash64(F.lit(2), *columns)
