"""DRIVER. The Spark session while preparation uses it: fixed settings, views of our own, and typed errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from pipeline.errors import DataError
from pipeline.preparation.causes import typed

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    # With pruning, CSV rows with missing or extra fields pass unseen.
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # A cast that fails gives null, which cleaning finds and rejects by name.
    "spark.sql.ansi.enabled": "false",
    "spark.sql.caseSensitive": "true",
    # The JVM leaves methods of more than 8000 bytes uncompiled: with 40 columns the code of a whole stage is longer,
    # and half as fast as Spark's code by operator.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # Timestamps in nanoseconds, where a query reads files by itself, are refused instead of taken for numbers.
    "spark.sql.legacy.parquet.nanosAsLong": "false",
    # Dates before 1582 in files that Spark did not write are read as they stand.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
}


@contextlib.contextmanager
def preparation_settings(session: SparkSession) -> Iterator[None]:
    """Settings that results depend on, for the duration; the session gets its own back."""
    with temporary_settings(session, {**_SETTINGS, "spark.sql.shuffle.partitions": str(_shuffle_partitions(session))}):
        yield


@contextlib.contextmanager
def temporary_settings(session: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Settings for the duration; the session gets its own back."""
    before = {key: session.conf.get(key, None) for key in settings}
    for key, value in settings.items():
        session.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            session.conf.unset(key) if old is None else session.conf.set(key, old)


def _shuffle_partitions(session: SparkSession) -> int:
    """Spark's default of 200 is many for a small machine; adaptive execution makes few of many, never more."""
    return min(
        int(session.conf.get("spark.sql.shuffle.partitions", "200") or 200), 4 * session.sparkContext.defaultParallelism
    )


@contextlib.contextmanager
def named_views(session: SparkSession, frames: Mapping[str, DataFrame]) -> Iterator[None]:
    """Temporary views of the given names, for the duration; views of the same names come back."""
    existing = {table.name for table in session.catalog.listTables() if table.isTemporary}
    hidden = {name: session.table(name) for name in frames if name in existing}
    for name, frame in frames.items():
        frame.createOrReplaceTempView(f"`{name}`")
    try:
        yield
    finally:
        for name in frames:
            session.catalog.dropTempView(name)
        for name, frame in hidden.items():
            frame.createOrReplaceTempView(f"`{name}`")


@contextlib.contextmanager
def spark_errors(what: str) -> Iterator[None]:
    """Turn what Spark raises into our errors; what a task of ours raised keeps its type."""
    try:
        yield
    except (ParseException, AnalysisException) as error:
        message = str(error).strip().splitlines()[0]
        found = typed(what, message) if isinstance(error, AnalysisException) else None
        raise found or DataError(f"{what} is not valid: {message}; expected Spark SQL on existing columns") from error
    except (PySparkException, Py4JJavaError) as error:
        raise typed(what, str(error)) or error from error
