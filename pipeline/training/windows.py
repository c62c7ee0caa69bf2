"""RANK. The memory in which windows of rows lie while they are dealt into batches: a fixed ring, reused for ever."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.training.part_files import Array, Field, GroupRead, PartFiles


class Closed(Exception):
    """The consumer has gone; readers stop."""


class WindowRing:
    """Buffers for a few windows: readers fill the next ones while the consumer empties the first.

    Memory is `count` times `rows` times the bytes of a row, allocated once. Reused memory is what makes it
    fast: fresh pages cost more than the bytes that are copied into them.
    """

    def __init__(self, fields: Sequence[Field], rows: int, count: int = 2) -> None:
        self._buffers = [
            {field.name: np.empty((rows, field.width), field.dtype) for field in fields} for _ in range(count)
        ]
        self._extras: list[dict[int, dict[str, pa.Array]]] = [{} for _ in range(count)]
        self._freed = count
        self._closed = False
        self._changed = threading.Condition()

    @property
    def bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(array.nbytes for buffer in self._buffers for array in buffer.values())

    def reset(self) -> None:
        """Forget all windows, for another epoch."""
        self._freed, self._closed = len(self._buffers), False
        self._extras = [{} for _ in self._buffers]

    def place(self, read: GroupRead) -> dict[str, Array]:
        """Where a row group's rows go; waits until the consumer has freed the buffer.

        Raises:
            Closed: nobody will.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or read.window < self._freed)
            if self._closed:
                raise Closed
        stop = read.first_row + read.rows
        return {name: array[read.first_row : stop] for name, array in self._buffer(read.window).items()}

    def fill(self, files: PartFiles, read: GroupRead) -> None:
        """Read a row group into its place."""
        extras = files.read(read, self.place(read))
        if extras:
            self._extras[read.window % len(self._extras)][read.first_row] = extras

    def columns(self, window: int) -> dict[str, Array]:
        """A complete window's columns."""
        return self._buffer(window)

    def extras(self, window: int) -> dict[str, Array]:
        """A complete window's columns of other types, as numpy arrays."""
        groups = self._extras[window % len(self._extras)]
        parts: list[Any] = [groups[first] for first in sorted(groups)]
        names = parts[0] if parts else ()
        return {name: np.concatenate([part[name].to_numpy(zero_copy_only=False) for part in parts]) for name in names}

    def free(self, window: int) -> None:
        """The consumer needs a window no more."""
        self._extras[window % len(self._extras)] = {}
        with self._changed:
            self._freed += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Send all waiting readers home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _buffer(self, window: int) -> dict[str, Array]:
        return self._buffers[window % len(self._buffers)]
