"""DRIVER. What the footers of Parquet files say of their columns: Spark's own errors name neither column nor file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import InputMissingError
from pipeline.preparation.footers import Leaf, Shape

_DIGITS = 38
"""Of Spark's longest decimal."""


def leaves(path: str) -> tuple[Leaf, ...]:
    """What a file's footer says of its columns.

    Raises:
        InputMissingError: the file is not Parquet.
        StorageError: it cannot be read.
    """
    try:
        with storage.storage_errors(path), storage.open_read(path) as stream:
            schema = pq.ParquetFile(stream).schema
    except pa.ArrowException as error:
        raise InputMissingError(f"{path} is not a Parquet file: {error}; expected one; write it again") from error
    return tuple(_leaf(schema.column(number)) for number in range(len(schema)))


def _leaf(found: pq.ColumnSchema) -> Leaf:
    logical: dict[str, Any] = {"Type": "None"}
    if found.logical_type.type != "NONE":
        logical = json.loads(found.logical_type.to_json())
    is_below = found.path != found.name
    is_nested = is_below or found.max_repetition_level > 0
    is_timestamp = logical["Type"] == "Timestamp"
    is_nanoseconds = is_timestamp and logical["timeUnit"] == "nanoseconds"
    is_long = logical["Type"] == "Decimal" and logical["precision"] > _DIGITS
    return Leaf(
        column=found.path.split(".")[0] if is_below else found.path,
        path=found.path,
        type=_words(logical, found.physical_type),
        is_nanoseconds=is_nanoseconds,
        is_utc=is_timestamp and logical["isAdjustedToUTC"],
        is_unreadable=logical["Type"] == "Time" or is_long or (is_nanoseconds and is_nested),
    )


def _words(logical: dict[str, Any], physical: str) -> str:
    kind = logical["Type"]
    if kind == "Time":
        return "time of day"
    if kind == "Timestamp":
        return f"timestamp in {logical['timeUnit']}{' of UTC' if logical['isAdjustedToUTC'] else ''}"
    if kind == "Decimal":
        return f"decimal of {logical['precision']} digits"
    return physical if kind == "None" else f"{kind} ({physical})"


def unreadable_columns(what: str, shapes: Iterable[Shape]) -> list[str]:
    """One offence for each column of a type that Spark does not have, of the first file that has such columns.

    Args:
        what: the input, as the user wrote it.
        shapes: of its files.
    """
    for shape in shapes:
        if types := {leaf.column: leaf for leaf in shape.leaves if leaf.is_unreadable}:
            return [
                f"{what}: column {column} of {shape.file} is a {_within(leaf)}{leaf.type}, which Spark does not read; "
                f"expected times as numbers or texts, decimals of at most {_DIGITS} digits, within lists, maps and "
                "structs timestamps in microseconds; write the file again, or leave the column out of the schema"
                for column, leaf in types.items()
            ]
    return []


def _within(leaf: Leaf) -> str:
    return "list, map or struct with a " if leaf.is_nanoseconds else ""
