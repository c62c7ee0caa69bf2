"""DRIVER. CSV and JSON as frames: rows that cannot be parsed are set aside, and texts in other letters are found."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, DataFrameReader
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from pipeline.errors import DataError, InputMissingError
from pipeline.preparation.columns import OWN
from pipeline.preparation.quoting import column
from pipeline.preparation.snapshot import hashed

FAULT = f"{OWN}fault"
"""The raw text of a row that could not be parsed, in frames of text files; null where it was."""
DEFAULTS: Mapping[str, dict[str, str]] = {
    # Quotes within quotes are doubled, as pandas, Excel and databases write them; Spark's default is a backslash.
    "csv": {"header": "true", "enforceSchema": "false", "escape": '"'}
}
"""Options of the formats where none are given."""
REPLACEMENT = "\ufffd"
"""What Java puts in the place of bytes that are no character."""
_ENCODINGS = (
    "expected UTF-8, or the encoding that options say; say options: {encoding: ISO-8859-1} or whichever it is, beside "
    "multiLine: true if it is UTF-16 or UTF-32; {encoding: UTF-8} takes such texts as they are"
)
_NO_COLUMNS = {
    "csv": "its files are empty; expected a line with the names of the columns, and rows; write them again",
    "json": "its files hold no object in a line of its own; expected JSON lines; of an array, or of objects over "
    "several lines, say options: {multiLine: true}",
}


def option(options: Mapping[str, str], name: str, default: str = "") -> str:
    """An option as Spark finds it: its name in any case."""
    return {key.lower(): value for key, value in options.items()}.get(name.lower(), default)


def is_on(options: Mapping[str, str], name: str) -> bool:
    """Whether an option that is true or false is true; what is not there is false."""
    return option(options, name).lower() == "true"


def columns_in(
    what: str, format_: str, reader: DataFrameReader, paths: list[str], options: Mapping[str, str], infers: bool
) -> StructType:
    """The columns of CSV or JSON files.

    Args:
        what: the table, as the user wrote it.
        format_: ``csv`` or ``json``.
        reader: with its options.
        paths: what Spark is to read.
        options: of the reader.
        infers: whether values of CSV tell types; otherwise they are texts.

    Raises:
        DataError: names of columns are not in the encoding that the options say.
        InputMissingError: the files tell no columns.
    """
    found = reader.option("inferSchema", infers).option("columnNameOfCorruptRecord", FAULT).load(paths).schema
    columns = [field for field in found if field.name != FAULT]
    if not columns:
        raise InputMissingError(f"{what}: {_NO_COLUMNS[format_]}")
    if strange := [field.name for field in columns if REPLACEMENT in field.name and not _is_utf8(options)]:
        raise DataError(
            f"{what}: columns {', '.join(strange)} have bytes in their names that are no text; {_ENCODINGS}"
        )
    return StructType(columns)


def read_texts(reader: DataFrameReader, paths: list[str], schema: StructType) -> DataFrame:
    """The rows of CSV or JSON files, with a column `FAULT`."""
    reader = reader.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", FAULT)
    fields = [*schema, StructField(FAULT, StringType())]
    return _fully_parsed(reader.schema(StructType(fields)).load(paths))


def _fully_parsed(frame: DataFrame) -> DataFrame:
    """Make every scan parse all columns.

    Spark parses only columns that a query uses, and a value that it did not parse is no fault: which rows are faulty
    would depend on the query. The condition is always true, which the optimizer cannot know.
    """
    return frame.where(F.pmod(F.xxhash64(*hashed(frame)), F.lit(2)) < 2)


def garbled(frame: DataFrame, options: Mapping[str, str]) -> Column:
    """Of a row of `read_texts`, the first column with bytes that are no character; null if there is none."""
    texts = [field.name for field in frame.schema if field.dataType == StringType() and field.name != FAULT]
    if _is_utf8(options) or not texts:
        return F.lit(None).cast("string")
    found = {name: column(name).contains(REPLACEMENT) for name in texts}
    any_ = reduce(or_, (F.coalesce(one, F.lit(False)) for one in found.values()))
    first = F.coalesce(*(F.when(one, F.lit(name)) for name, one in found.items()))
    return F.when(column(FAULT).isNull() & any_, first)


def _is_utf8(options: Mapping[str, str]) -> bool:
    """Whether that is said; the files may hold the replacement character itself then."""
    return option(options, "encoding", option(options, "charset")).upper() == "UTF-8"


def not_utf8(what: str, name: str, rows: int) -> str:
    """The offence of a table with rows of which `garbled` names a column."""
    return f"{what}: column {name} and maybe others have bytes that are no text in {rows:,} rows; {_ENCODINGS}"
