"""DRIVER. The Spark session while preparation uses it: fixed settings, views of our own, and typed errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from pipeline.errors import DataError, PipelineError
from pipeline.preparation.causes import typed
from pipeline.preparation.columns import OWN
from pipeline.preparation.quoting import quoted

ANSI, TIME_ZONE, CASE = "spark.sql.ansi.enabled", "spark.sql.session.timeZone", "spark.sql.caseSensitive"
_SHUFFLE, _READ = "spark.sql.shuffle.partitions", "spark.sql.files.minPartitionNum"
_TASKS_PER_CORE = 4
_HIDES_VALUES = ContextVar("hides_values", default=False)
_UTC = ("UTC", "Etc/UTC", "GMT", "Z", "+00:00")
_SETTINGS = {
    TIME_ZONE: "UTC",
    # With pruning, CSV rows with missing or extra fields pass unseen.
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Our own expressions; those of the user are analysed as the session has it, see `OwnSettings`.
    ANSI: "false",
    CASE: "true",
    # The JVM leaves methods of more than 8000 bytes uncompiled: with 40 columns the code of a whole stage is longer,
    # and half as fast as Spark's code by operator.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # The most frequent values of a column are found in many tasks, however many are wanted.
    "spark.sql.optimizer.windowGroupLimitThreshold": str(2**31 - 1),
    # Timestamps in nanoseconds, where a view of the catalog reads files, are refused instead of taken for numbers.
    "spark.sql.legacy.parquet.nanosAsLong": "false",
    # Dates before 1582 in files that Spark did not write are read as they stand.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    # What is broken or gone fails, and is not left out.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    # A date that is not of its format is a fault of its row, not an error that asks for a setting.
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    # Spark 4 refuses most encodings of CSV and JSON otherwise, windows-1252 among them.
    "spark.sql.legacy.javaCharsets": "true",
}


@dataclass(frozen=True)
class OwnSettings:
    """What the session had before preparation, where it decides what the user's own SQL and frames mean."""

    session: SparkSession
    ansi: str
    time_zone: str
    case_sensitive: str

    @classmethod
    def of(cls, session: SparkSession) -> OwnSettings:
        """As they are now."""
        return cls(session, *(str(session.conf.get(key)) for key in (ANSI, TIME_ZONE, CASE)))

    @contextlib.contextmanager
    def sql(self) -> Iterator[None]:
        """While the user's SQL is analysed.

        With ANSI mode a cast in it that fails is an error, and no silent null; names are found in any case, or not.
        """
        with temporary_settings(self.session, {ANSI: self.ansi, CASE: self.case_sensitive}):
            yield

    @contextlib.contextmanager
    def views(self, frames: Mapping[str, DataFrame]) -> Iterator[None]:
        """Temporary views of the given names, for the duration; views of the same names come back."""
        session = self.session
        catalog = session._jsparkSession.sessionState().catalog()  # the public one lists all tables of a database
        with self.sql():  # which finds them by their names in any case, or not
            hidden = {name: session.table(quoted(name)) for name in frames if catalog.getTempView(name).isDefined()}
            for name, frame in frames.items():
                frame.createOrReplaceTempView(quoted(name))
        try:
            yield
        finally:
            with self.sql():
                for name in frames:
                    session.catalog.dropTempView(name)
                for name, frame in hidden.items():
                    frame.createOrReplaceTempView(quoted(name))

    def planned(self, frame: DataFrame) -> DataFrame:
        """The rows of a frame as its owner sees them, planned in the time zone of the session.

        A frame is lazy, so that in that of preparation its texts would become other moments. Where the two are one it
        stays as it is, and Spark reads of its files only what is needed.
        """
        if self.time_zone in _UTC:
            return frame
        with temporary_settings(self.session, {TIME_ZONE: self.time_zone}), self.sql():
            plan = frame.select("*")._jdf.queryExecution()
            rows = plan.toRdd()  # an RDD keeps the settings of its making
        return DataFrame(
            self.session._jsparkSession.internalCreateDataFrame(rows, frame._jdf.schema(), False), self.session
        )


@contextlib.contextmanager
def preparation_settings(session: SparkSession, hides_values: bool = False) -> Iterator[OwnSettings]:
    """Settings that results depend on, for the duration; the session gets its own back, and yielded are those.

    Args:
        session: whose settings.
        hides_values: whether `spark_errors` must not show values of rows, as where columns are sensitive.
    """
    own = OwnSettings.of(session)
    token = _HIDES_VALUES.set(hides_values)
    try:
        with temporary_settings(session, {**_SETTINGS, **_parallelism(session)}):
            yield own
    finally:
        _HIDES_VALUES.reset(token)


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


def _parallelism(session: SparkSession) -> dict[str, str]:
    """Some tasks for each core, so that none is left alone with a long one at the end; never more than files give.

    Spark reads by as many tasks as there are cores, as long as its largest are not exceeded. Of its 200 shuffle
    partitions adaptive execution makes few of many, never more; they are many for one machine. On a cluster they stay:
    with dynamic allocation the cores that have come so far say nothing of those that will.
    """
    context = session.sparkContext
    some = _TASKS_PER_CORE * context.defaultParallelism
    partitions = int(session.conf.get(_SHUFFLE, "200") or 200)
    partitions = min(partitions, some) if str(context.master).startswith("local") else partitions
    return {_SHUFFLE: str(partitions), _READ: str(session.conf.get(_READ, None) or some)}


@contextlib.contextmanager
def spark_errors(what: str) -> Iterator[None]:
    """Turn what Spark raises into our errors; what a task of ours raised keeps its type."""
    try:
        yield
    except (ParseException, AnalysisException) as error:
        message = re.sub(rf"(, )?`{OWN}\w+`", "", str(error).strip().splitlines()[0])
        found = typed(what, message) if isinstance(error, AnalysisException) else None
        raise found or DataError(f"{what} is not valid: {message}; expected Spark SQL on existing columns") from error
    except (PySparkException, Py4JJavaError) as error:
        if not _HIDES_VALUES.get():
            raise typed(what, str(error)) or error from error
        raise typed(what, str(error), hides_values=True) or _untold(what, error) from None


def _untold(what: str, error: Exception) -> PipelineError:
    kinds = re.findall(r"\b[\w.$]+(?:Exception|Error)\b", str(error))
    return PipelineError(
        f"{what}: Spark failed with {kinds[-1] if kinds else type(error).__name__}; expected it to go on; its message "
        "may show values of sensitive columns and stands in Spark's log alone"
    )
