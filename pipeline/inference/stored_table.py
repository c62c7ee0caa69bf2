"""DRIVER. The table that is scored: its files and their format are found before Spark starts, which then reads them."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from pipeline import storage
from pipeline.errors import InputMissingError
from pipeline.preparation.formats import Format, format_of
from pipeline.preparation.inputs import files_at, spark_path
from pipeline.preparation.parquet import read_parquet
from pipeline.preparation.read import DEFAULTS
from pipeline.preparation.session import spark_errors


@dataclass(frozen=True)
class StoredTable:
    """A table in files.

    Attributes:
        source: a file, a folder or a glob pattern, as the user wrote it.
        format: of all its files.
        paths: what Spark is to read: the folder, or the files of the pattern.
        files: those that are not empty, sorted.
    """

    source: str
    format: Format
    paths: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def find(cls, source: str) -> StoredTable:
        """Look for a table.

        Raises:
            InputMissingError: nothing is there.
            DataError: its files are of several formats.
            StorageError: the storage cannot be listed.
        """
        files = sorted(files_at(source))
        if not files:
            state = "is empty" if storage.exists(source) else "is missing"
            raise InputMissingError(f"{source} {state}; expected a Parquet, ORC, JSON or CSV table; check the path")
        paths = (source,) if storage.exists(source) else tuple(file.path for file in files)
        return cls(source, format_of(source, files), paths, tuple(file.path for file in files if file.bytes))

    def read(self, spark: SparkSession) -> DataFrame:
        """The rows; a CSV's texts are left to the features to interpret, so that none becomes null in silence.

        Raises:
            DataError: the files have other columns than one another.
            InputMissingError: a file is not of the format.
        """
        paths = [spark_path(path) for path in self.paths]
        with spark_errors(self.source):
            if self.format == "csv":
                return spark.read.options(**DEFAULTS["csv"]).csv(paths, inferSchema=False)
            if self.format == "json":
                return spark.read.json(paths)
            if self.format == "orc":
                return spark.read.orc(paths)
            # As preparation reads them, whose settings are the session's: old dates are taken as they stand.
            reader = spark.read.options(datetimeRebaseMode="CORRECTED", int96RebaseMode="CORRECTED").format("parquet")
            return read_parquet(spark, reader, self.source, paths, self.files)
