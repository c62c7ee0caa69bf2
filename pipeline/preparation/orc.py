"""DRIVER and EXECUTOR. ORC files as a frame: what Spark would read as null since files differ is refused by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import orc
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_type

from pipeline import storage
from pipeline.errors import DataError, InputMissingError
from pipeline.preparation.footers import Leaf, Shape, lacking, shapes_of

_WIDER = ("tinyint", "smallint", "int", "bigint")
_EXACT_IN = {"double": ("tinyint", "smallint", "int", "float"), "float": ("tinyint", "smallint")}
_ZONELESS = re.compile(r"\btimestamp_ntz(?=[>,]|$)")
"""As a type at any depth, and not as a field's name, which a colon follows: ORC timestamps are read either way."""


def read_orc(
    session: SparkSession,
    reader: DataFrameReader,
    what: str,
    paths: list[str],
    files: Sequence[str],
    schema: T.StructType | None = None,
    may_lack: bool = False,
) -> DataFrame:
    """A frame of files of which all have its columns, of its types.

    Args:
        session: the session of ``reader``.
        reader: with its options.
        what: the table, as the user wrote it.
        paths: what Spark is to read.
        files: the files there that are not empty, as `storage` opens them, in order.
        schema: the columns; without it they are inferred.
        may_lack: whether files may lack columns, in whose rows they are then null.

    Raises:
        DataError: files lack columns, or have them of types that Spark cannot read as theirs.
        InputMissingError: files are not ORC.
    """
    frame = (reader.schema(schema) if schema else reader).load(paths)
    shapes = [_named(shape, frame.schema) for shape in shapes_of(session, what, files, leaves)]
    missing = [] if may_lack else lacking(what, shapes, frame.schema.names)
    if offences := [*missing, *_of_other_types(what, shapes, frame.schema)]:
        raise DataError(*offences)
    return frame


def leaves(path: str) -> tuple[Leaf, ...]:
    """What a file's footer says of its columns.

    Raises:
        InputMissingError: the file is not ORC.
        StorageError: it cannot be read.
    """
    with storage.storage_errors(path), storage.open_read(path) as stream:
        try:
            schema = orc.ORCFile(stream).schema
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:  # the store's, not Arrow's
                raise
            raise InputMissingError(f"{path} is not an ORC file: {error}; expected one; write it again") from error
    return tuple(Leaf(field.name, field.name, _spark_type(field.type)) for field in schema)


def _spark_type(type_: pa.DataType) -> str:
    try:
        return from_arrow_type(type_, prefer_timestamp_ntz=False).simpleString()
    except (PySparkException, TypeError):
        return str(type_)


def _named(shape: Shape, schema: T.StructType) -> Shape:
    """Files of old Hive have no names of columns, and Spark goes by their places."""
    if not all(leaf.column.startswith("_col") for leaf in shape.leaves):
        return shape
    names = [name for name in schema.names if name not in shape.partitions]
    named = (Leaf(name, name, leaf.type) for name, leaf in zip(names, shape.leaves, strict=False))
    return Shape(tuple(named), shape.partitions, shape.file, shape.files)


def _of_other_types(what: str, shapes: Sequence[Shape], schema: T.StructType) -> list[str]:
    """One offence for each column that a file has of a type whose values may become null."""
    wanted = {field.name: field.dataType.simpleString() for field in schema}
    offences: dict[str, str] = {}
    for shape in shapes:
        for leaf in shape.leaves:
            if leaf.column in wanted and not _reads_as(leaf.type, wanted[leaf.column]):
                offences.setdefault(
                    leaf.column,
                    f"{what}: column {leaf.column} of {shape.file} has ORC type {leaf.type}; expected "
                    f"{wanted[leaf.column]}, as the other files or source.inputs say; write the file again with that "
                    "type, or leave the column out of the input's schema",
                )
    return list(offences.values())


def _reads_as(found: str, wanted: str) -> bool:
    is_wider = found in _WIDER and wanted in _WIDER and _WIDER.index(found) <= _WIDER.index(wanted)
    return found == _ZONELESS.sub("timestamp", wanted) or is_wider or found in _EXACT_IN.get(wanted, ())
