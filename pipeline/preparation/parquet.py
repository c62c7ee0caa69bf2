"""DRIVER. Parquet files as a frame, with the timestamps in nanoseconds that pandas writes by default.

Spark 3.5 and 4 refuse TIMESTAMP(NANOS). With `spark.sql.legacy.parquet.nanosAsLong` they infer bigint, and a column
that is declared as bigint is read as the number of nanoseconds under any setting. So the setting is on only while
columns are inferred here: a query that reads files by itself is still refused, and never given numbers. Nor does Spark
see that of two files one has nanoseconds and the other microseconds, so all footers are compared before a number is
taken for a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.errors import DataError, InputMissingError, StorageError
from pipeline.preparation.parquet_types import Leaf, leaves, unreadable_columns
from pipeline.preparation.quoting import quoted
from pipeline.preparation.session import spark_errors, temporary_settings

_EXPLAINED_FILES = 20
"""Spark takes the types from the first file; more are looked at for inputs whose files differ."""
_COMPARED_FILES = 256
"""Of which it is looked whether all have the same columns, first and last among them; of more files, as many."""
_THREADS = 16
"""That read footers: a remote store answers many as fast as one."""

Footers = Sequence[tuple[str, tuple[Leaf, ...]]]


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
        InputMissingError: a file is not Parquet.
        StorageError: a file cannot be read.
    """
    is_exact = session.conf.get("spark.sql.caseSensitive") == "true"
    moments = _moments(what, _footers(files, schema), schema, is_exact)
    try:
        with spark_errors(what):
            frame = _load(session, reader, paths, schema, moments)
    except DataError as error:
        footers = ((file, _leaves_if_any(file)) for file in files[:_EXPLAINED_FILES])
        raise DataError(*(unreadable_columns(what, footers) or error.offences)) from error
    if not may_lack and (offences := _lacking(what, files, frame.schema.names)):
        raise DataError(*offences)
    found = {field.name: field.dataType for field in frame.schema}
    numbers = {name: type_ for name, type_ in moments.items() if found.get(name) == T.LongType()}
    return frame.withColumns({name: _timestamp(name, type_) for name, type_ in numbers.items()}) if numbers else frame


def _footers(files: Sequence[str], schema: T.StructType | None) -> Footers:
    """Of all files if the first or the last has nanoseconds in a column that is wanted; otherwise of none.

    Footers of thousands of remote files take minutes, so tables without nanoseconds are not to pay for them. Files
    whose writer changed lie between these two, as they are in the order of their names.
    """

    def wanted(found: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
        return tuple(leaf for leaf in found if schema is None or leaf.column in schema.names)

    ends = {*files[:1], *files[-1:]}
    if not any(leaf.is_nanoseconds for file in ends for leaf in wanted(_leaves_if_any(file))):
        return ()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="footers") as pool:
        return [(file, wanted(found)) for file, found in zip(files, pool.map(leaves, files), strict=True)]


def _lacking(what: str, files: Sequence[str], names: Sequence[str]) -> list[str]:
    """One offence for each column that some of the files do not have: to Spark it is null in all of their rows."""
    step = max(1, (len(files) - 1) / (_COMPARED_FILES - 1))
    compared = [files[round(place * step)] for place in range(min(len(files), _COMPARED_FILES))]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="footers") as pool:
        found = {
            file: {leaf.column for leaf in there}
            for file, there in zip(compared, pool.map(_leaves_if_any, compared), strict=True)
        }
    offences = []
    for name in names:
        lacking = [file for file, columns in found.items() if columns and name not in columns | _partitions(file)]
        if lacking:
            offences.append(
                f"{what}: {len(lacking)} of {len(compared)} files, such as {lacking[0]}, have no column {name}; "
                "expected it in all, since it would be null in their rows; write them again, or leave it out of the "
                "schema; where null is meant, say options: {mergeSchema: 'true'}"
            )
    return offences


def _partitions(file: str) -> set[str]:
    """Columns that are in the file's path."""
    return {unquote(part.split("=")[0]) for part in file.split("/")[:-1] if "=" in part}


def _leaves_if_any(file: str) -> tuple[Leaf, ...]:
    """None of a file that is damaged or no Parquet, as Spark will say."""
    try:
        return leaves(file)
    except (InputMissingError, StorageError):
        return ()


def _moments(what: str, footers: Footers, schema: T.StructType | None, is_exact: bool) -> dict[str, T.DataType]:
    """The type that each timestamp in nanoseconds is to have; ``is_exact`` says whether names differ by case alone."""
    offences = unreadable_columns(what, footers) if schema is None else []
    if offences := offences or _mixed(what, footers, is_exact):
        raise DataError(*offences)
    found = {leaf.path: leaf.is_utc for _, there in footers for leaf in there if leaf.is_nanoseconds}
    if schema is None:
        return {name: T.TimestampType() if is_utc else T.TimestampNTZType() for name, is_utc in found.items()}
    times = (T.TimestampType(), T.TimestampNTZType())
    return {field.name: field.dataType for field in schema if field.name in found and field.dataType in times}


def _mixed(what: str, footers: Footers, is_exact: bool) -> list[str]:
    """One offence for each column that is a timestamp in nanoseconds in one file, and something else in another."""
    first: dict[str, tuple[str, Leaf]] = {}
    offences: dict[str, str] = {}
    for file, there in footers:
        for leaf in there:
            name = leaf.path if is_exact else leaf.path.lower()
            before, other = first.setdefault(name, (file, leaf))
            if other.type != leaf.type and (other.is_nanoseconds or leaf.is_nanoseconds):
                offences.setdefault(
                    name,
                    f"{what}: column {leaf.path} of {file} is {leaf.type}, and of {before} {other.type}; expected one "
                    "type in all files; write one of them again, or make them two inputs and unite them in the query",
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
