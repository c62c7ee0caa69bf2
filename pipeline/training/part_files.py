"""RANK. Part files on any storage: checked once per process, then read row group by row group into given memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import PartFile
from pipeline.errors import StorageError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Field:
    """A column of numbers that is read: a packed one with `width` numbers per row, or a typed one with 1."""

    name: str
    dtype: str
    width: int = 1

    @property
    def row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize) * self.width


@dataclass(frozen=True)
class GroupRead:
    """One row group to read, and where its rows go.

    Attributes:
        window: which of the rank's windows it belongs to, counted from 0.
        first_row: of the row group, in the window.
        last: it completes its window.
    """

    part: PartFile
    row_group: int
    rows: int
    window: int
    first_row: int
    last: bool


@dataclass
class Timings:
    """Seconds spent in each activity; reading and decoding happen beside the consumer, which shuffles or waits."""

    checking: float = 0.0
    reading: float = 0.0
    shuffling: float = 0.0
    waiting: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, activity: str, since: float) -> None:
        """Count the time from `since` (of ``time.perf_counter``) until now."""
        with self._lock:
            setattr(self, activity, getattr(self, activity) + time.perf_counter() - since)


_checked: set[tuple[str, int, int]] = set()
_checked_lock = threading.Lock()


class PartFiles:
    """The part files of a dataset.

    Args:
        url: of the dataset.
        fields: what is read of each row group.
        extras: names of further columns of any type.
    """

    def __init__(self, url: str, fields: Sequence[Field], extras: Sequence[str], timings: Timings) -> None:
        self._url = url
        self.fields = tuple(fields)
        self.extras = tuple(extras)
        self._timings = timings

    def location(self, part: PartFile) -> str:
        """The url of a part file."""
        return storage.join(self._url, part.path)

    def check(self, part: PartFile) -> None:
        """Compare a file's size and crc32 with the manifest, once per process.

        Raises:
            StorageError: the file is missing, or is not the one that was published.
        """
        url = self.location(part)
        key = (url, part.bytes, part.crc32)
        with _checked_lock:
            if key in _checked:
                return
        started = time.perf_counter()
        digest = storage.digest_file(url, deep=False)
        if (digest.bytes, digest.crc32) != (part.bytes, part.crc32):
            raise StorageError(
                f"{url} is corrupt: {digest.bytes} bytes with crc32 {digest.crc32:08x}; expected {part.bytes} "
                f"with {part.crc32:08x}; restore the file or publish the dataset again"
            )
        with _checked_lock:
            _checked.add(key)
        self._timings.add("checking", started)

    def read(self, read: GroupRead, target: Mapping[str, Array]) -> dict[str, pa.Array]:
        """Fill (rows, width) arrays with a row group's fields; returns the extra columns.

        Raises:
            StorageError: the file is missing, corrupt, or does not hold what the manifest says.
        """
        self.check(read.part)
        url = self.location(read.part)
        started = time.perf_counter()
        names = [field_.name for field_ in self.fields]
        try:
            with storage.open_read(url) as stream:
                file = pq.ParquetFile(stream)
                table = file.read_row_group(read.row_group, columns=[*names, *self.extras], use_threads=False)
        except (pa.ArrowException, OSError, IndexError) as error:
            raise _foreign(url, str(error)) from error
        if table.num_rows != read.rows or set(table.column_names) != {*names, *self.extras}:
            raise _foreign(url, f"row group {read.row_group} has {table.num_rows} rows of {table.column_names}")
        for field_ in self.fields:
            _copy(url, table[field_.name], field_, target[field_.name])
        self._timings.add("reading", started)
        return {name: table[name].combine_chunks() for name in self.extras}


def _foreign(url: str, why: str) -> StorageError:
    return StorageError(f"{url} is not the part file that the manifest describes: {why}; publish the dataset again")


def _copy(url: str, column: pa.ChunkedArray, field_: Field, target: Array) -> None:
    row = 0
    for chunk in column.chunks:
        if chunk.null_count:
            raise _foreign(url, f"column {field_.name} has {chunk.null_count} nulls")
        target[row : row + len(chunk)] = _matrix(url, chunk, field_)
        row += len(chunk)


def _matrix(url: str, chunk: pa.Array, field_: Field) -> Array:
    """A view of an arrow column as (rows, width) numbers."""
    if not pa.types.is_binary(chunk.type) and not pa.types.is_fixed_size_binary(chunk.type):
        return chunk.to_numpy(zero_copy_only=False).reshape(-1, 1)  # type: ignore[no-any-return]
    first, last = chunk.offset, chunk.offset + len(chunk)
    if pa.types.is_binary(chunk.type):
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[first : last + 1]
        if len(chunk) and (np.diff(offsets) != field_.row_bytes).any():
            raise _foreign(url, f"column {field_.name} has values of another length than {field_.row_bytes} bytes")
        data = np.frombuffer(chunk.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    else:
        if chunk.type.byte_width != field_.row_bytes:
            raise _foreign(url, f"column {field_.name} has values of {chunk.type.byte_width} bytes")
        data = np.frombuffer(chunk.buffers()[1], np.uint8)[first * field_.row_bytes : last * field_.row_bytes]
    return data.view(np.dtype(field_.dtype).newbyteorder("<")).reshape(-1, field_.width)
