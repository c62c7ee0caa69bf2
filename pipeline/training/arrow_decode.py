"""RANK. Any Parquet column of numbers, decoded by pyarrow into given memory: the way that always works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.training.reads import Array, Field


class Foreign(Exception):
    """The file does not hold what is wanted of it."""


def decode(
    stream: IO[bytes],
    row_group: int,
    rows: int,
    fields: Sequence[Field],
    extras: Sequence[str],
    into: Mapping[str, Array],
) -> dict[str, pa.Array]:
    """Fill arrays with the fields of a row group; returns the extra columns of any type.

    Args:
        stream: the file.
        row_group: its index.
        rows: that it must have.
        fields: which columns to decode.
        extras: names of further columns.
        into: an array for each field.

    Raises:
        Foreign: missing columns, another number of rows, nulls, values of another size.
    """
    names = [field.name for field in fields]
    try:
        table = pq.ParquetFile(stream).read_row_group(row_group, columns=[*names, *extras], use_threads=False)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise Foreign(str(error)) from error
    if table.num_rows != rows or set(table.column_names) != {*names, *extras}:
        raise Foreign(f"row group {row_group} has {table.num_rows} rows of {', '.join(table.column_names)}")
    for field in fields:
        _copy(table[field.name], field, into[field.name])
    return {name: table[name].combine_chunks() for name in extras}


def _copy(column: pa.ChunkedArray, field: Field, target: Array) -> None:
    row = 0
    for chunk in column.chunks:
        if chunk.null_count:
            raise Foreign(f"column {field.name} has {chunk.null_count} nulls")
        target[row : row + len(chunk)] = _matrix(chunk, field)
        row += len(chunk)


def _matrix(chunk: pa.Array, field: Field) -> Array:
    """A view of an arrow column as rows of numbers."""
    first, last = chunk.offset, chunk.offset + len(chunk)
    if pa.types.is_binary(chunk.type):
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[first : last + 1]
        if (np.diff(offsets) != field.row_bytes).any():
            raise Foreign(f"column {field.name} has values of another length than {field.row_bytes} bytes")
        data = np.frombuffer(chunk.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    elif pa.types.is_fixed_size_binary(chunk.type):
        if chunk.type.byte_width != field.row_bytes:
            raise Foreign(f"column {field.name} has values of {chunk.type.byte_width} bytes")
        data = np.frombuffer(chunk.buffers()[1], np.uint8)[first * field.row_bytes : last * field.row_bytes]
    elif chunk.type == pa.from_numpy_dtype(np.dtype(field.dtype)) and not field.shape:
        return np.asarray(chunk.to_numpy(zero_copy_only=False))
    else:
        raise Foreign(f"column {field.name} has type {chunk.type}")
    return data.view(np.dtype(field.dtype).newbyteorder("<")).reshape(-1, *field.shape)
