"""DRIVER. Parquet files as a frame, with the timestamps in nanoseconds that pandas writes by default.

Spark 3.5 and 4 refuse TIMESTAMP(NANOS). With `spark.sql.legacy.parquet.nanosAsLong` they infer bigint, and a column
that is declared as bigint is read as the number of nanoseconds under any setting. So the setting is on only while
columns are inferred here: a view that reads such files by itself is refused, and never gives numbers. Nor does Spark
see that of two files one has nanoseconds and the other microseconds, so all footers are compared before a number is
taken for a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.errors import DataError
from pipeline.preparation.footers import Leaf, Shape, lacking, shapes_of
from pipeline.preparation.parquet_types import leaves, unreadable_columns
from pipeline.preparation.quoting import quoted
from pipeline.preparation.session import spark_errors, temporary_settings


def read_parquet(
    session: SparkSession,
    reader: DataFrameReader,
    what: str,
    paths: list[str],
    files: Sequence[str],
    schema: T.StructType | None = None,
    may_lack: bool = False,
) -> DataFrame:
    """A frame in which timestamps in nanoseconds are Spark's, in microseconds: floored, towards the past.

    Such a column becomes what the same one in microseconds becomes: a TIMESTAMP if the file says that it is of UTC,
    else a TIMESTAMP_NTZ; or which of the two ``schema`` says. One that ``schema`` declares as another type is left to
    Spark, and as BIGINT stays a number.

    Args:
        session: the session of ``reader``.
        reader: with its options.
        what: the input, as the user wrote it.
        paths: what Spark is to read.
        files: the files there that are not empty, as `storage` opens them, in order.
        schema: the columns; without it they are inferred.
        may_lack: whether files may lack columns, in whose rows they are then null.

    Raises:
        DataError: a column has a type that Spark does not read, is of nanoseconds in some of the files only, or is
            not in all of them.
        InputMissingError: files are not Parquet.
    """
    is_exact = session.conf.get("spark.sql.caseSensitive") == "true"
    shapes = shapes_of(session, what, files, leaves)
    moments = _moments(what, shapes, schema, is_exact)
    try:
        with spark_errors(what):
            frame = _load(session, reader, paths, schema, moments)
    except DataError as error:
        raise DataError(*(unreadable_columns(what, shapes) or error.offences)) from error
    if not may_lack and (offences := lacking(what, shapes, frame.schema.names)):
        raise DataError(*offences)
    found = {field.name: field.dataType for field in frame.schema}
    numbers = {name: type_ for name, type_ in moments.items() if found.get(name) == T.LongType()}
    return frame.withColumns({name: _timestamp(name, type_) for name, type_ in numbers.items()}) if numbers else frame


def _moments(what: str, shapes: Sequence[Shape], schema: T.StructType | None, is_exact: bool) -> dict[str, T.DataType]:
    """The type that each timestamp in nanoseconds is to have; ``is_exact`` says whether names differ by case alone."""
    nanoseconds = {leaf.path: leaf.is_utc for shape in shapes for leaf in shape.leaves if leaf.is_nanoseconds}
    if schema is not None:
        nanoseconds = {name: is_utc for name, is_utc in nanoseconds.items() if name in schema.names}
    if not nanoseconds:
        return {}
    offences = unreadable_columns(what, shapes) if schema is None else []
    if offences := offences or _mixed(what, shapes, schema, is_exact):
        raise DataError(*offences)
    if schema is None:
        return {name: T.TimestampType() if is_utc else T.TimestampNTZType() for name, is_utc in nanoseconds.items()}
    times = (T.TimestampType(), T.TimestampNTZType())
    return {field.name: field.dataType for field in schema if field.name in nanoseconds and field.dataType in times}


def _mixed(what: str, shapes: Sequence[Shape], schema: T.StructType | None, is_exact: bool) -> list[str]:
    """One offence for each column that is a timestamp in nanoseconds in one file, and something else in another."""
    first: dict[str, tuple[str, Leaf]] = {}
    offences: dict[str, str] = {}
    for shape in shapes:
        for leaf in (leaf for leaf in shape.leaves if schema is None or leaf.column in schema.names):
            name = leaf.path if is_exact else leaf.path.lower()
            before, other = first.setdefault(name, (shape.file, leaf))
            if other.type != leaf.type and (other.is_nanoseconds or leaf.is_nanoseconds):
                offences.setdefault(
                    name,
                    f"{what}: column {leaf.path} of {shape.file} is {leaf.type}, and of {before} {other.type}; "
                    "expected one type in all files; write one of them again, or make them two inputs and unite them "
                    "in the query",
                )
    return list(offences.values())


def _load(
    session: SparkSession,
    reader: DataFrameReader,
    paths: list[str],
    schema: T.StructType | None,
    moments: dict[str, T.DataType],
) -> DataFrame:
    if schema is not None:
        fields = ((field.name, T.LongType() if field.name in moments else field.dataType) for field in schema)
        return reader.schema(T.StructType([T.StructField(*field) for field in fields])).load(paths)
    with temporary_settings(session, {"spark.sql.legacy.parquet.nanosAsLong": "true" if moments else "false"}):
        return reader.load(paths)


def _timestamp(name: str, type_: T.DataType) -> Column:
    """In whole numbers throughout, and without regard to the session's time zone."""
    number = quoted(name)
    micros = f"({number} div 1000 - if({number} % 1000 < 0, 1, 0))"
    if type_ == T.TimestampType():
        return F.expr(f"timestamp_micros({micros})")
    return F.expr(f"TIMESTAMP_NTZ'1970-01-01 00:00:00' + {micros} * INTERVAL '0.000001' SECOND")
