"""RANK. What the loader's modules hand each other: columns to read, row groups to read, and the time it takes."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset import PartFile

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Field:
    """A column of numbers that is read; `shape` is that of a row: ``(width,)`` if packed, ``()`` if typed."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize) * math.prod(self.shape)


@dataclass(frozen=True)
class GroupRead:
    """One row group to read, and where its rows go.

    Attributes:
        part: the file.
        row_group: its index in the file.
        rows: of the row group.
        window: which of the rank's windows it belongs to, counted from 0.
        first_row: of the row group, in the window.
        split_row: of the row group, in the split.
    """

    part: PartFile
    row_group: int
    rows: int
    window: int
    first_row: int
    split_row: int


@dataclass
class Timings:
    """Seconds spent in each activity; checking and reading happen beside the consumer, which shuffles or waits.

    Attributes:
        fetching: copying remote files to a local disk, and checking them on the way.
        checking: comparing files of this machine with their checksums.
        reading: from storage into memory.
        decoding: by pyarrow, of columns that are not stored plainly.
        shuffling: gathering the rows of batches.
        waiting: of the consumer for the readers.
        bytes: of the rows that were read.
    """

    fetching: float = 0.0
    checking: float = 0.0
    reading: float = 0.0
    decoding: float = 0.0
    shuffling: float = 0.0
    waiting: float = 0.0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, activity: str, since: float) -> None:
        """Count the time from `since` (of ``time.perf_counter``) until now."""
        with self._lock:
            setattr(self, activity, getattr(self, activity) + time.perf_counter() - since)

    def add_bytes(self, count: int) -> None:
        """Count bytes of rows."""
        with self._lock:
            self.bytes += count

    def seconds(self) -> dict[str, float]:
        """The activities' seconds by name."""
        names = ("fetching", "checking", "reading", "decoding", "shuffling", "waiting")
        return {name: getattr(self, name) for name in names}
