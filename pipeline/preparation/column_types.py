"""DRIVER. Columns of types that cannot be prepared, by name; PySpark does not know all types of Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pyspark.errors import PySparkValueError
from pyspark.sql import DataFrame

from pipeline.errors import DataError


def check_known(frame: DataFrame, giver: str) -> None:
    """Refuse a frame that PySpark cannot even name the columns of.

    Raises:
        DataError: its intervals.
    """
    try:
        _ = frame.schema
    except PySparkValueError:
        refuse_intervals(frame, giver)
        raise


def refuse_intervals(frame: DataFrame, giver: str) -> None:
    """Refuse what neither files nor Python hold.

    Raises:
        DataError: all columns with intervals in them, with their types.
    """
    types = {one["name"]: one["type"] for one in json.loads(frame._jdf.schema().json())["fields"]}
    found = {name: interval for name, type_ in types.items() if (interval := next(_intervals(type_), None))}
    if found:
        raise DataError(
            *(
                f"column {name} of {giver} has type {interval}; expected one that files can hold; make a number or a "
                "text of it in SQL, or leave it out"
                for name, interval in found.items()
            )
        )


def _intervals(type_: Any) -> Iterator[str]:
    """The intervals in a type as Spark writes it in JSON: a name, or an object with further types."""
    if isinstance(type_, str):
        if type_.startswith("interval"):
            yield type_
        return
    for inner in (type_.get(key) for key in ("elementType", "keyType", "valueType")):
        if inner is not None:
            yield from _intervals(inner)
    for field in type_.get("fields", ()):
        yield from _intervals(field["type"])
