"""DRIVER. The table that is scored: its files and their format are found before Spark starts, which then reads them.

It is read as preparation reads its inputs. Of a table that has the format of the primary input the configuration says
more, and the columns that the model reads are then what they were in training: see `StoredTable.read`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.data import InputConfig
from pipeline.errors import DataError, InputMissingError
from pipeline.preparation.causes import plain_path
from pipeline.preparation.formats import Format, format_of
from pipeline.preparation.inputs import InputFile, files_at, query_of
from pipeline.preparation.open_quotes import open_lines, refuse_open_lines
from pipeline.preparation.tables import columns_of, ddl, ddl_of, read_lines, read_table
from pipeline.preparation.text_files import FAULT, garbled, not_utf8

_SHOWN, _CHARACTERS = 3, 80
"""How many rows that cannot be parsed an error shows, and how much of each."""


@dataclass(frozen=True)
class StoredTable:
    """A table in files.

    Attributes:
        source: a file, a folder or a glob pattern, as the user wrote it.
        format: of all its files.
        files: what is there, sorted.
    """

    source: str
    format: Format
    files: tuple[InputFile, ...]

    @classmethod
    def find(cls, source: str) -> StoredTable:
        """Look for a table.

        Raises:
            InputMissingError: nothing is there.
            DataError: its files are of several formats.
            StorageError: the storage cannot be listed.
        """
        files = tuple(sorted(files_at(source)))
        if not files:
            state = "is empty" if storage.exists(source) else "is missing"
            raise InputMissingError(f"{source} {state}; expected a Parquet, ORC, JSON or CSV table; check the path")
        return cls(source, format_of(source, files), files)

    def read(self, session: SparkSession, config: PipelineConfig, reads: Iterable[str] = ()) -> DataFrame:
        """The rows; those of CSV and JSON with a column `FAULT`, see `check_rows`.

        Args:
            session: with the settings of preparation.
            config: its primary input says how tables of that format are written: a table to score is read with the
                same ``options``. Without a query its rows are those of the input, so that the columns that the model
                reads have the types of the input's ``schema``, and where CSV has no header, it names them. All other
                columns of CSV are texts, which the features read, so that none becomes null in silence.
            reads: the columns that the model reads.

        Raises:
            DataError: the files have other columns than one another, or than the schema names.
            InputMissingError: a file is not of the format.
        """
        return read_table(session, self.source, self._input(session, config, set(reads)), self.files)

    def check_rows(self, frame: DataFrame, config: PipelineConfig) -> int:
        """Count the rows of what `read` gave.

        Raises:
            DataError: rows cannot be parsed, or their texts are cut or garbled.
        """
        if FAULT not in frame.columns:
            return frame.count()
        plain, is_shown = self._plain_input(config), not config.source.sensitive
        lines, options = read_lines(frame.sparkSession, self.source, plain, self.files), plain.options
        if lines is not None and (open_ := open_lines(lines, options)) is not None:
            refuse_open_lines({self.source: open_}, is_shown)
        strange = garbled(frame, options)
        counts = frame.agg(F.count(F.lit(1)), F.count(FAULT), F.count(strange), F.min(strange)).collect()[0]
        rows, faults, strange_rows, strange_column = counts
        if strange_rows:
            raise DataError(not_utf8(self.source, strange_column, strange_rows))
        if faults:
            faulty = frame.where(F.col(FAULT).isNotNull())
            first = faulty.select(F.substring(FAULT, 1, _CHARACTERS), "_metadata.file_path").limit(_SHOWN).collect()
            shown = ", ".join(f"{repr(line) if is_shown else 'one'} of {plain_path(file)}" for line, file in first)
            raise DataError(
                f"{self.source}: {faults:,} of {rows:,} rows cannot be parsed, such as {shown}; expected all, since "
                "scoring loses no row; mend them, or the options and the schema of the primary input, which are for "
                "this table too"
            )
        return int(rows)

    def _primary(self, config: PipelineConfig) -> str | None:
        """The name of the primary input, if it is of this format."""
        name = config.source.primary or next(iter(config.source.inputs), None)
        input_ = config.source.inputs.get(name or "")
        return name if input_ is not None and input_.is_files and input_.format == self.format else None

    def _plain_input(self, config: PipelineConfig) -> InputConfig:
        primary = self._primary(config)
        options = config.source.inputs[primary].options if primary else {}
        return InputConfig(path=[self.source], format=self.format, options=options)

    def _input(self, session: SparkSession, config: PipelineConfig, reads: set[str]) -> InputConfig:
        plain, primary = self._plain_input(config), self._primary(config)
        if self.format not in ("csv", "json"):
            return plain
        schema = config.source.inputs[primary].columns if primary and query_of(config) is None else None
        declared = ddl(session, f"source.inputs.{primary}.schema", schema) if schema else T.StructType()
        found = columns_of(session, self.source, plain, self.files)
        found = self._named(found, declared, config.labels)
        types = {field.name: field.dataType for field in declared if field.name in reads}
        fields = [T.StructField(field.name, types.get(field.name, field.dataType)) for field in found]
        return plain.model_copy(update={"columns": ddl_of(T.StructType(fields))})

    def _named(self, found: T.StructType, declared: T.StructType, labels: Sequence[str]) -> T.StructType:
        """The columns of a CSV file, in its order: those without a name have the schema's, with the labels or without.

        Raises:
            DataError: there are more or fewer of them than the schema has left.
        """
        unnamed = [field.name for field in found if re.fullmatch(r"_c\d+", field.name)]
        if not unnamed or not declared.names:
            return found
        named = set(found.names) - set(unnamed)
        names = [name for name in declared.names if name not in named]
        unlabelled = [name for name in names if name not in labels]
        for fitting in (names, unlabelled):
            if len(fitting) == len(unnamed):
                given = dict(zip(unnamed, fitting, strict=True))
                return T.StructType([T.StructField(given.get(one.name, one.name), one.dataType) for one in found])
        raise DataError(
            f"{self.source} has {len(unnamed)} columns without a name; expected {len(names)}, as the schema of the "
            f"primary input says, or {len(unlabelled)} without the label; give it a header, or those columns"
        )
