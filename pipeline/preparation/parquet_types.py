"""DRIVER. Columns of Parquet files that Spark cannot read: its own error names a type, but neither column nor file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import StorageError

_FILES = 20
"""Spark takes the types from the first file; more are looked at for inputs whose files differ."""
_DIGITS = 38
"""Of Spark's longest decimal."""


def unreadable_columns(what: str, paths: Iterable[str]) -> list[str]:
    """One offence for each column of a type that Spark does not have, of the first file that has such columns.

    Args:
        what: the input, as the user wrote it.
        paths: its files.
    """
    for path in itertools.islice(paths, _FILES):
        if found := dict(_unreadable(path)):
            return [
                f"{what}: column {column} of {path} is a {type_}, which Spark does not read; expected timestamps in "
                f"microseconds, times as numbers or texts, decimals of at most {_DIGITS} digits; "
                f"write the file again, or leave the column out of {what}.schema"
                for column, type_ in found.items()
            ]
    return []


def _unreadable(path: str) -> Iterator[tuple[str, str]]:
    try:
        with storage.open_read(path) as stream:
            schema = pq.ParquetFile(stream).schema
    except (StorageError, OSError, pa.ArrowException):
        return
    for number in range(len(schema)):
        leaf = schema.column(number)
        type_ = _type(json.loads(leaf.logical_type.to_json()))
        if type_ is not None:
            yield leaf.path.split(".")[0], type_


def _type(logical: dict[str, Any]) -> str | None:
    kind = logical["Type"]
    if kind == "Time":
        return "time of day"
    if kind == "Timestamp" and logical["timeUnit"] == "nanoseconds":
        return "timestamp in nanoseconds"
    if kind == "Decimal" and logical["precision"] > _DIGITS:
        return f"decimal of {logical['precision']} digits"
    return None
