"""DRIVER. How a table is to be read that nobody has described: options of texts and types of columns, by a look."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from pipeline import storage
from pipeline.config.data import InputConfig
from pipeline.preparation.inputs import InputFile
from pipeline.preparation.open_quotes import FILE, LINE, open_lines
from pipeline.preparation.quoting import column
from pipeline.preparation.tables import ddl_of, read_as_texts, read_lines, read_table
from pipeline.preparation.text_files import FAULT, REPLACEMENT, garbled

_ENCODING = "windows-1252"
"""Of the encodings of one byte that western programs write, the one that has a letter for nearly every byte."""
_SEPARATORS = (",", ";", "\t", "|")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_LINES = 200
"""That are looked at for separators and names."""
_PADDED_ROWS = 100_000
_BYTES = 1 << 16
"""The same of files that Spark does not cut into lines."""


def input_of(session: SparkSession, path: str, format_: str, files: Sequence[InputFile]) -> InputConfig:
    """How a table is to be read: options by which its texts are what they are meant to be, and types of its columns.

    Args:
        session: with the settings of preparation.
        path: of the table.
        format_: of its files.
        files: what is there.

    Raises:
        DataError: files have columns of types that Spark does not read, or that differ.
        InputMissingError: files are not of their format, or tell no columns.
        StorageError: a file cannot be read.
    """
    options = _dialect(session, path, format_, files)
    plain = InputConfig(path=[path], format=format_, options=options)
    if not plain.is_files:
        return plain
    frame = read_table(session, path, plain, files)
    if format_ == "csv" and _is_garbled(frame, options):
        plain = plain.model_copy(update={"options": {**options, "encoding": _ENCODING}})
        frame = read_table(session, path, plain, files)
    fields = [field for field in frame.schema if field.name != FAULT]
    if format_ == "csv":
        padded = _padded(session, plain, files, fields)
        fields = [T.StructField(one.name, T.StringType()) if one.name in padded else one for one in fields]
    return plain.model_copy(update={"columns": ddl_of(T.StructType(fields))})


def _padded(
    session: SparkSession, input_: InputConfig, files: Sequence[InputFile], fields: Sequence[T.StructField]
) -> set[str]:
    """Columns of whole numbers that begin with zeros, as codes do: as numbers they would lose them."""
    whole = [field.name for field in fields if isinstance(field.dataType, T.IntegralType)]
    if not whole:
        return set()
    frame = read_as_texts(session, input_, files, [field.name for field in fields])
    found: Any = frame.select(*map(column, whole)).limit(_PADDED_ROWS).toPandas()
    return {name for name in whole if found[name].str.match(r"[+-]?0\d").any()}


def _dialect(session: SparkSession, path: str, format_: str, files: Sequence[InputFile]) -> dict[str, str]:
    """Options of the reader that the first lines tell, and of CSV whether texts go on in further lines."""
    full = [file for file in files if file.bytes]
    if not full or format_ not in ("csv", "json"):
        return {}
    if format_ == "json":
        return _of_json(_first_lines(session, path, full[0]))
    if (text := _utf_16(full[0])) is not None:
        return {"encoding": "UTF-16", "multiLine": "true", **_of_names(text)}
    text = "\n".join(_first_lines(session, path, full[0]))
    options = {**_of_names(text), **({"encoding": _ENCODING} if REPLACEMENT in text else {})}
    plain = InputConfig(path=[path], format="csv", options=options)
    lines = read_lines(session, path, plain, full)
    if lines is not None and (open_ := open_lines(lines, options)) is not None and not open_.isEmpty():
        options["multiLine"] = "true"
    return options


def _is_garbled(frame: DataFrame, options: Mapping[str, str]) -> bool:
    has_texts = any(field.dataType == T.StringType() for field in frame.schema if field.name != FAULT)
    return has_texts and not frame.where(garbled(frame, options).isNotNull()).isEmpty()


def _first_lines(session: SparkSession, path: str, file: InputFile) -> list[str]:
    lines = read_lines(session, path, InputConfig(path=[path], format="csv"), [file])
    assert lines is not None
    return [row[LINE] for row in lines.drop(FILE).limit(_LINES).collect()]


def _of_json(lines: Sequence[str]) -> dict[str, str]:
    """An object in each line is what Spark expects; what is none by itself goes on in the next line."""
    first = next((line for line in lines if line.strip("\ufeff \t\r")), "{}")
    try:
        json.loads(first.lstrip("\ufeff"))
        return {}
    except ValueError:
        return {"multiLine": "true"}


def _utf_16(file: InputFile) -> str | None:
    with storage.storage_errors(file.path), storage.open_read(file.path) as stream:
        start = stream.read(_BYTES)
    return start.decode("utf-16", "ignore") if start.startswith(_UTF_16) else None


def _of_names(text: str) -> dict[str, str]:
    """By the first lines: the separator, and whether the names are such that columns go by their places."""
    separator = _separator(text)
    options = {} if separator == "," else {"sep": separator}
    names = next(_rows(text.lstrip("\ufeff"), separator), [])
    if "" in names or len(set(names)) < len(names):
        options["enforceSchema"] = "true"
    return options


def _separator(text: str) -> str:
    """That which cuts most lines into as many fields as the first, and that into several; a comma if none does."""

    def fit(separator: str) -> tuple[float, int]:
        fields = [len(row) for row in _rows(text, separator) if row]
        if not fields or fields[0] < 2:
            return 0.0, 0
        return sum(one == fields[0] for one in fields) / len(fields), fields[0]

    best = max(_SEPARATORS, key=fit)
    return best if fit(best)[0] > 0.5 else ","


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    """The fields of each row, up to one that is too long, as a wrong separator and open quotes make it."""
    with contextlib.suppress(csv.Error):
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=separator)
