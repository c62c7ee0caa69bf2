"""ANYWHERE. The model's inputs straight from the row groups of part files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import Dataset, DatasetSchema, PackedColumn, PartFile
from pipeline.errors import StorageError
from pipeline.inference.inputs import Arrays, model_inputs

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RowGroup:
    """One row group of a part file: the unit of work, so that results do not depend on who reads what."""

    part: PartFile
    number: int

    @property
    def rows(self) -> int:
        return self.part.row_groups[self.number]


def row_groups(dataset: Dataset, split: str) -> list[RowGroup]:
    """All row groups of a split, in order."""
    return [RowGroup(part, number) for part in dataset.manifest.splits[split] for number in range(len(part.row_groups))]


def read_row_group(
    dataset_url: str, schema: DatasetSchema, group: RowGroup, more: Sequence[str] = ()
) -> tuple[Arrays, Arrays]:
    """Read the model's inputs and the label of one row group.

    Args:
        dataset_url: the dataset's.
        schema: the dataset's.
        group: which rows.
        more: further columns to read as they are, such as kept ones.

    Returns:
        The inputs (see `model_inputs`), and ``label``, the weight if there is one, and what ``more`` names.

    Raises:
        StorageError: the file is missing, changed or corrupt.
    """
    others = [column.name for column in schema.with_role("label", "weight")] + list(more)
    url = storage.join(dataset_url, group.part.path)
    try:
        with storage.open_read(url) as stream:
            names = [*(packed.name for packed in schema.packed), *others]
            table = pq.ParquetFile(stream).read_row_group(group.number, columns=names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{url} is corrupt: {error}; restore the file or publish the dataset again") from error
    if table.num_rows != group.rows:
        raise StorageError(f"{url} has {table.num_rows} rows in row group {group.number}; expected {group.rows}")
    encoded: Arrays = {}
    try:
        for packed in schema.packed:
            encoded.update(_unpack(table.column(packed.name), packed, schema))
    except pa.ArrowException as error:
        raise StorageError(f"{url} does not fit its manifest: {error}; publish the dataset again") from error
    return model_inputs(encoded, schema), {name: _values(table.column(name)) for name in others}


def labels_of(schema: DatasetSchema, others: Arrays) -> Array:
    """The published label of each row of `read_row_group`; of several labels (rows, labels)."""
    if len(schema.labels) == 1:
        return others[schema.label.name]
    return np.column_stack([others[name] for name in schema.labels])


def _values(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.to_numpy())


def _unpack(column: pa.ChunkedArray, packed: PackedColumn, schema: DatasetSchema) -> Iterator[tuple[str, Array]]:
    """Cut the packed matrix into its members; a vector takes as many numbers as it is wide."""
    members = [schema.column(name) for name in packed.members]
    dtype = np.dtype(packed.dtype).newbyteorder("<")
    width = sum(member.width for member in members)
    blobs = [_blobs(chunk, width * dtype.itemsize) for chunk in column.chunks]
    matrix = np.concatenate([np.empty(0, np.uint8), *blobs]).view(dtype).reshape(-1, width)
    start = 0
    for member in members:
        end = start + member.width
        yield member.name, matrix[:, start:end] if member.shape else matrix[:, start]
        start = end


def _blobs(chunk: pa.Array, row_bytes: int) -> Array:
    """The bytes of all rows of a binary column, whether its values are of fixed size or merely all equally long."""
    if chunk.null_count:
        raise pa.ArrowInvalid(f"{chunk.null_count} packed values are null")
    if pa.types.is_fixed_size_binary(chunk.type) and chunk.type.byte_width == row_bytes:
        data = np.frombuffer(chunk.buffers()[1], np.uint8)
        return data[chunk.offset * row_bytes : (chunk.offset + len(chunk)) * row_bytes]
    if pa.types.is_binary(chunk.type):
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        if (np.diff(offsets) == row_bytes).all():
            return np.frombuffer(chunk.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    raise pa.ArrowInvalid(f"packed values of type {chunk.type} are not {row_bytes} bytes each")


def verify_crc(dataset: Dataset, split: str) -> None:
    """Compare every part file of a split with the crc32 that its writer computed.

    Raises:
        StorageError: names every file that is missing or not what was written.
    """
    offences = []
    for part in dataset.manifest.splits[split]:
        url = storage.join(dataset.url, part.path)
        found = storage.digest_file(url, deep=False)
        if (found.bytes, found.crc32) != (part.bytes, part.crc32):
            offences.append(f"{url} is corrupt; expected crc32 {part.crc32:08x}; restore the file or publish again")
    if offences:
        raise StorageError(*offences)
