"""DRIVER and EXECUTOR. What the footers of many files say of their columns: which files are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import unquote

from pyspark.sql import SparkSession

from pipeline.errors import InputMissingError, StorageError
from pipeline.preparation.tasks import run_tasks

_THREADS = 16
"""That read footers: a remote store answers many as fast as one."""
_FEW = 256
"""Files whose footers the driver reads by itself, and as many go to a Spark task."""


@dataclass(frozen=True)
class Leaf:
    """A column of a file, or what a column that is a list, a map or a struct holds at one place."""

    column: str
    path: str
    """The column, or the way from it to the place, with dots."""
    type: str
    """In words."""
    is_nanoseconds: bool = False
    """A timestamp in nanoseconds."""
    is_utc: bool = False
    """A timestamp that is a moment, not the reading of a clock somewhere."""
    is_unreadable: bool = False
    """Spark does not have the type; nanoseconds it reads as numbers, which become times only of a column by itself."""


@dataclass(frozen=True)
class Shape:
    """Files that have the same columns: what they are, the first of the files, and how many there are."""

    leaves: tuple[Leaf, ...]
    partitions: tuple[str, ...]
    """Columns that are in the files' paths."""
    file: str
    files: int

    @property
    def columns(self) -> set[str]:
        """Names of all columns."""
        return {*self.partitions, *(leaf.column for leaf in self.leaves)}


def shapes_of(
    session: SparkSession, what: str, files: Sequence[str], leaves: Callable[[str], tuple[Leaf, ...]]
) -> tuple[Shape, ...]:
    """The shapes of all files, in the order of their first files; many files are looked at in Spark tasks.

    A file that is gone has none, as Spark will say.

    Args:
        session: to run tasks in.
        what: the table, as the user wrote it.
        files: as `storage` opens them.
        leaves: what the footer of a file says of its columns.

    Raises:
        InputMissingError: files are damaged, or of another format; all of them.
    """
    chunks = [files[start : start + _FEW] for start in range(0, len(files), _FEW)]
    if len(chunks) <= 1:
        found = [_look(files, leaves)]
    else:
        found = [
            _Looked.from_json(one) for one in run_tasks(session, lambda chunk: asdict(_look(chunk, leaves)), chunks)
        ]
    if strange := [file for one in found for file in one.strange]:
        raise InputMissingError(
            *(
                f"{what}: {file} cannot be read in its format; expected a whole file with a footer; write it again, or "
                "mend the input's format"
                for file in strange
            )
        )
    return _merged(shape for one in found for shape in one.shapes)


@dataclass(frozen=True)
class _Looked:
    """What was found of some files."""

    shapes: tuple[Shape, ...]
    strange: tuple[str, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Looked:
        """What `dataclasses.asdict` has made plain."""
        shapes = (
            Shape(tuple(Leaf(**leaf) for leaf in one["leaves"]), tuple(one["partitions"]), one["file"], one["files"])
            for one in value["shapes"]
        )
        return cls(tuple(shapes), tuple(value["strange"]))


def _look(files: Sequence[str], leaves: Callable[[str], tuple[Leaf, ...]]) -> _Looked:
    strange: list[str] = []

    def shape(file: str) -> Shape | None:
        try:
            return Shape(leaves(file), _partitions(file), file, 1)
        except InputMissingError:
            strange.append(file)
        except StorageError:
            pass
        return None

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="footers") as pool:
        shapes = _merged(one for one in pool.map(shape, files) if one is not None)
    return _Looked(shapes, tuple(sorted(strange)))


def _partitions(file: str) -> tuple[str, ...]:
    return tuple(unquote(part.split("=")[0]) for part in file.split("/")[:-1] if "=" in part)


def _merged(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    first: dict[Any, Shape] = {}
    counts: Counter[Any] = Counter()
    for shape in shapes:
        key = shape.leaves, shape.partitions
        first.setdefault(key, shape)
        counts[key] += shape.files
    return tuple(replace(shape, files=counts[key]) for key, shape in first.items())


def lacking(what: str, shapes: Sequence[Shape], names: Sequence[str]) -> list[str]:
    """One offence for each column that some of the files do not have: to Spark it is null in all of their rows.

    Args:
        what: the table, as the user wrote it.
        shapes: of its files.
        names: the columns that it has to Spark.
    """
    total = sum(shape.files for shape in shapes)
    offences = []
    for name in names:
        if without := [shape for shape in shapes if name not in shape.columns]:
            offences.append(
                f"{what}: {sum(shape.files for shape in without)} of {total} files, such as {without[0].file}, have no "
                f"column {name}; expected it in all, since it would be null in their rows; write them again, or leave "
                "it out of the schema; where null is meant, say options: {mergeSchema: true}"
            )
    return offences
