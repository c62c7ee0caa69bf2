"""ANYWHERE. The model's inputs straight from the row groups of part files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import Dataset, DatasetSchema, PartFile
from pipeline.errors import StorageError
from pipeline.inference.inputs import Arrays, model_inputs


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
    for packed in schema.packed:
        encoded.update(_unpack(table.column(packed.name), packed.dtype, packed.members, schema))
    return model_inputs(encoded, schema), {name: _values(table.column(name)) for name in others}


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    return np.asarray(column.to_numpy())


def _unpack(
    column: pa.ChunkedArray, dtype: str, members: Iterable[str], schema: DatasetSchema
) -> Iterable[tuple[str, npt.NDArray[Any]]]:
    """Cut the packed matrix into its members; a vector takes as many numbers as it is wide."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    matrix = data.view(np.dtype(dtype).newbyteorder("<")).reshape(len(array), -1)
    start = 0
    for name in members:
        width = schema.column(name).width
        yield name, matrix[:, start] if not schema.column(name).shape else matrix[:, start : start + width]
        start += width


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
