"""RANK. One pass of one rank through what is left of an epoch: row groups for the readers, windows for the consumer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.dataset import PartFile
from pipeline.plan import EpochPlan, WindowSlice
from pipeline.training.fetch_ahead import FetchAhead
from pipeline.training.part_files import PartFiles
from pipeline.training.reads import Array, GroupRead, Timings
from pipeline.training.windows import RowStore, Window


class RowGroups:
    """The row groups of a split, numbered file by file.

    Attributes:
        rows: of each row group.
        files: the number of the file of each row group.
    """

    def __init__(self, parts: Sequence[PartFile]) -> None:
        self._parts = parts
        counts = [len(part.row_groups) for part in parts]
        self.rows = np.array([rows for part in parts for rows in part.row_groups], np.int64)
        self.files = np.repeat(np.arange(len(parts)), counts)
        self._first_of_file = np.cumsum(counts, dtype=np.int64) - counts
        self._first_rows = np.cumsum(self.rows) - self.rows

    def reads(self, window: int, groups: Array) -> list[GroupRead]:
        """Reads of a window's row groups, one after another."""
        reads, first_row = [], 0
        for group in groups.tolist():
            file, rows = int(self.files[group]), int(self.rows[group])
            index = group - int(self._first_of_file[file])
            reads.append(GroupRead(self._parts[file], index, rows, window, first_row, int(self._first_rows[group])))
            first_row += rows
        return reads


class EpochReading:
    """What readers fill, and what the consumer takes.

    Attributes:
        missing: the row groups to read, in order.
    """

    def __init__(
        self, plan: EpochPlan, rank: int, groups: RowGroups, files: PartFiles, store: RowStore, timings: Timings
    ) -> None:
        self.files = files
        self._plan, self._store, self._timings = plan, store, timings
        self._slices = list(plan.slices(rank))
        self._windows = [groups.reads(number, part.row_groups) for number, part in enumerate(self._slices)]
        self._orders: dict[int, Array] = {}
        self.missing = store.missing([read for reads in self._windows for read in reads])
        parts = {read.part.path: read.part for read in self.missing}
        self._ahead = FetchAhead(files, list(parts.values())) if files.remote and parts else None

    def fill(self, read: GroupRead) -> None:
        """Read a row group into its place; called by reader threads, which have time to spare for permutations too."""
        if self._ahead is not None:
            self._ahead.needs(read.part)
        self._store.fill(self.files, read)
        if read.first_row == 0:
            self._orders[read.window] = self._taken(self._slices[read.window])

    def stop(self) -> None:
        """Send waiting reader threads home."""
        self._store.close()
        if self._ahead is not None:
            self._ahead.close()

    def close(self) -> None:
        """Close the files; a reader thread that has not ended would open one again."""
        self.files.close()

    def windows(self, done: Iterator[GroupRead]) -> Iterator[Window]:
        """Each window when all its row groups are in memory; it is freed when the next one is asked for."""
        waiting_for = {read.split_row for read in self.missing}
        for number, reads in enumerate(self._windows):
            started = time.perf_counter()
            while not waiting_for.isdisjoint(read.split_row for read in reads):
                waiting_for.remove(next(done).split_row)
            self._timings.add("waiting", started)
            rows = self._orders.pop(number, None)
            if rows is None:
                rows = self._taken(self._slices[number])
            yield self._store.window(number, reads, rows)
            self._store.free(number)

    def _taken(self, part: WindowSlice) -> Array:
        """Which rows of a window the rank takes, in order."""
        order = self._plan.window_order(part.window)
        if part.taken_rows == part.rows:
            return order
        return np.concatenate([order[start:stop] for start, stop in part.intervals])
