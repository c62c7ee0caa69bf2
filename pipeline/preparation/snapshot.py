"""DRIVER. What was in a table, a database or a frame when it was read, as far as it can be known.

Tables that consist of files (of the catalog, Delta, views of files) are known by their files, as Spark lists them.
Of all others the number of rows and the sum of the rows' hashes are taken while they are counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline import storage
from pipeline.errors import InterruptedRunError, StorageError
from pipeline.preparation.inputs import InputFile, Inputs, described
from pipeline.preparation.quoting import column

_AT_ONCE = 16
"""Files that a store is asked for at a time."""


class Counted(Protocol):
    """What a census says of an input that is not made of files."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def contents(self) -> int | None:
        """The sum of their hashes."""


def check_contents(then: Mapping[str, Counted], now: Mapping[str, Counted]) -> None:
    """Refuse to publish what was read of databases and the like while it changed.

    Raises:
        InterruptedRunError: they have other rows now; the same command starts again from those.
    """
    changed = [name for name, one in now.items() if (one.rows, one.contents) != (then[name].rows, then[name].contents)]
    if changed:
        raise InterruptedRunError(
            *(
                f"input {name}: its rows changed during the run, of {then[name].rows} to {now[name].rows} or in what "
                "they hold; expected them to stay; run the command again"
                for name in changed
            )
        )


def files_of_tables(frames: Mapping[str, DataFrame], inputs: Inputs) -> dict[str, tuple[InputFile, ...]]:
    """The files behind each frame that is no listed input; without those that are not made of readable files."""
    found = {name: _files(frame) for name, frame in frames.items() if name not in inputs}
    return {name: files for name, files in found.items() if files}


def _files(frame: DataFrame) -> tuple[InputFile, ...]:
    try:
        paths = frame.inputFiles()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return tuple(sorted(pool.map(described, paths)))
    except (StorageError, ValueError, ImportError, OSError, PySparkException):
        return ()


def files_now(tables: Inputs) -> dict[str, tuple[InputFile, ...]]:
    """The same files as they are now, without those that are gone."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = {name: list(pool.map(_now, files)) for name, files in tables.items()}
    return {name: tuple(file for file in files if file is not None) for name, files in found.items()}


def _now(file: InputFile) -> InputFile | None:
    with contextlib.suppress(StorageError, OSError):
        return described(file.path)
    return None


def contents(frame: DataFrame) -> Column:
    """The sum of a hash of each row: the same for the same rows in any order."""
    nulls = [column(field.name).isNull() for field in frame.schema]
    return F.sum(F.xxhash64(*nulls, *hashed(frame)).cast("decimal(20,0)"))


def hashed(frame: DataFrame) -> list[Column]:
    """All columns for hashing; of those that hold maps, which Spark does not hash, whether there is one."""
    return [column(field.name).isNull() if _holds_map(field.dataType) else column(field.name) for field in frame.schema]


def _holds_map(type_: T.DataType) -> bool:
    if isinstance(type_, T.StructType):
        return any(_holds_map(field.dataType) for field in type_)
    return isinstance(type_, T.MapType) or (isinstance(type_, T.ArrayType) and _holds_map(type_.elementType))


def fingerprint(rows: int, total: int) -> dict[str, Any]:
    """What is recorded of an input that has no files."""
    return {"sha256": storage.sha256_of([rows, str(total)]), "rows": rows, "contents": f"{total:016x}"}
