"""RANK. The memory in which rows lie while they are dealt into batches: a ring of windows, or the whole split."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.training.part_files import PartFiles
from pipeline.training.reads import Array, Field, GroupRead

WINDOWS = 2
"""One that the consumer empties, one that readers fill."""


@dataclass(frozen=True)
class Window:
    """A window in memory.

    Attributes:
        columns: (rows, width) arrays of packed columns, (rows,) arrays of typed ones.
        rows: which rows of the columns the rank takes, in order.
        extras: further columns of any type.
        extra_rows: which rows of the extras these are.
    """

    columns: dict[str, Array]
    rows: Array
    extras: dict[str, Array]
    extra_rows: Array


class RowStore(Protocol):
    """Where readers put row groups, and the consumer finds windows."""

    def missing(self, reads: Sequence[GroupRead]) -> list[GroupRead]:
        """Those that have to be read."""

    def fill(self, files: PartFiles, read: GroupRead) -> None:
        """Read a row group into its place, when there is room. Raises `Closed` if there never will be."""

    def window(self, number: int, reads: Sequence[GroupRead], rows: Array) -> Window:
        """A complete window; `rows` are counted along its row groups."""

    def free(self, number: int) -> None:
        """The consumer needs a window no more."""

    def close(self) -> None:
        """Send all waiting readers home."""


class Closed(Exception):
    """The consumer has gone; readers stop."""


class WindowRing:
    """Buffers for a few windows: readers fill the next ones while the consumer empties the first.

    Memory is `count` times `rows` times the bytes of a row, allocated once. Reused memory is what makes it
    fast: fresh pages cost more than the bytes that are copied into them.
    """

    def __init__(self, fields: Sequence[Field], rows: int, count: int = WINDOWS) -> None:
        self._buffers = [
            {field.name: np.empty((rows, *field.shape), field.dtype) for field in fields} for _ in range(count)
        ]
        self._changed = threading.Condition()
        self.reset()

    @property
    def bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(array.nbytes for buffer in self._buffers for array in buffer.values())

    def reset(self) -> None:
        """Forget all windows, for another epoch."""
        self._freed, self._closed = len(self._buffers), False
        self._extras: list[dict[int, dict[str, pa.Array]]] = [{} for _ in self._buffers]

    def missing(self, reads: Sequence[GroupRead]) -> list[GroupRead]:
        return list(reads)

    def fill(self, files: PartFiles, read: GroupRead) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or read.window < self._freed)
            if self._closed:
                raise Closed
        place = slice(read.first_row, read.first_row + read.rows)
        target = {name: array[place] for name, array in self._buffer(read.window).items()}
        self._extras[read.window % len(self._extras)][read.first_row] = files.read(read, target)

    def window(self, number: int, reads: Sequence[GroupRead], rows: Array) -> Window:
        extras = self._extras[number % len(self._extras)]
        return Window(self._buffer(number), rows, _joined(extras[read.first_row] for read in reads), rows)

    def free(self, number: int) -> None:
        self._extras[number % len(self._extras)] = {}
        with self._changed:
            self._freed += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _buffer(self, window: int) -> dict[str, Array]:
        return self._buffers[window % len(self._buffers)]


class ResidentRows:
    """The whole split in memory: read once, in the order of the first epoch; later epochs read nothing."""

    def __init__(self, fields: Sequence[Field], rows: int) -> None:
        self._columns = {field.name: np.empty((rows, *field.shape), field.dtype) for field in fields}
        self._extras: dict[int, dict[str, pa.Array]] = {}

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return sum(array.nbytes for array in self._columns.values())

    def missing(self, reads: Sequence[GroupRead]) -> list[GroupRead]:
        return [read for read in reads if read.split_row not in self._extras]

    def fill(self, files: PartFiles, read: GroupRead) -> None:
        place = slice(read.split_row, read.split_row + read.rows)
        target = {name: array[place] for name, array in self._columns.items()}
        self._extras[read.split_row] = files.read(read, target)

    def window(self, number: int, reads: Sequence[GroupRead], rows: Array) -> Window:
        split_rows = np.concatenate([np.arange(read.split_row, read.split_row + read.rows) for read in reads])
        return Window(self._columns, split_rows[rows], _joined(self._extras[read.split_row] for read in reads), rows)

    def free(self, number: int) -> None:
        return

    def close(self) -> None:
        return


def _joined(parts: Iterable[dict[str, pa.Array]]) -> dict[str, Array]:
    """Row groups' further columns, one after another, as numpy arrays."""
    parts = list(parts)
    return {name: np.concatenate([part[name].to_numpy(zero_copy_only=False) for part in parts]) for name in parts[0]}
