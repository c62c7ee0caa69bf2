"""ANYWHERE. Which rows each rank reads in an epoch, in which order: arithmetic on the manifest, nothing to negotiate.

The order of all rows of an epoch, its *sequence*, depends on the dataset, the seed and the epoch only: the files are
permuted, the row groups of each `BUNDLE_FILES` files are permuted together, a run of them is a *window*, and the rows
of a window are permuted again. (Preparation has shuffled all rows once, so files and row groups are random samples.)
A rank reads one contiguous stretch of the sequence: two ranks share at most the window at their border, and a rank
opens little more than its share of the files, however many ranks there are. So which rows meet in a step depends on the
number of ranks; that an epoch has each row once does not.

Every global step takes B rows: rank r of W gives B // W of them, one more if r < B % W. All ranks compute the
same number of steps. What is left of an epoch after some steps is a list of intervals of the sequence; it can be
*dealt* again to another number of ranks, so a position inside an epoch is a list of [world_size, steps done].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
LastBatch = Literal["keep", "drop", "pad"]
Deals = Sequence[Sequence[int]]

BUNDLE_FILES = 4
"""Files whose row groups are mixed; a rank that reads less than that much opens up to so many files all the same."""

_FILE_STREAM, _GROUP_STREAM, _ROW_STREAM = 0, 1, 2


@dataclass(frozen=True)
class Deal:
    """Rows of an epoch, handed to a number of ranks in equal steps.

    Attributes:
        intervals: (k, 2) first and one-past-last positions in the sequence, ascending.
        last_batch: what becomes of rows that do not fill a step: `keep` and `pad` make a smaller step of them,
            `drop` leaves them out.
    """

    intervals: Integers
    world_size: int
    global_batch_size: int
    last_batch: LastBatch

    @cached_property
    def rows(self) -> int:
        """Rows that are dealt, with those that `drop` leaves out."""
        return int(np.sum(self.intervals[:, 1] - self.intervals[:, 0]))

    @property
    def steps(self) -> int:
        """Steps, on every rank."""
        return self._full_steps + (self._partial_rows > 0)

    @property
    def _full_steps(self) -> int:
        return self.rows // self.global_batch_size

    @property
    def _partial_rows(self) -> int:
        return 0 if self.last_batch == "drop" else self.rows % self.global_batch_size

    def step_rows(self, step: int) -> int:
        """Rows of one step over all ranks."""
        return self.global_batch_size if step < self._full_steps else self._partial_rows

    def batch_rows(self, step: int, rank: int) -> int:
        """Rows of one step on one rank."""
        return _share(self.step_rows(step), self.world_size, rank)

    def full_batch_rows(self, rank: int) -> int:
        """Rows of a full step on one rank."""
        return _share(self.global_batch_size, self.world_size, rank)

    def positions(self, rank: int, done: int = 0) -> tuple[int, int]:
        """First and one-past-last of a rank's rows after some steps, counted along the intervals."""
        full, partial = self._full_steps, self._partial_rows
        start = full * _first(self.global_batch_size, self.world_size, rank)
        start += _first(partial, self.world_size, rank)
        share = _share(self.global_batch_size, self.world_size, rank)
        stop = start + full * share + _share(partial, self.world_size, rank)
        return (start + done * share if done <= full else stop), stop

    def slice(self, rank: int, done: int = 0) -> Integers:
        """The intervals of the sequence that a rank has still to read after some steps."""
        return _cut(self.intervals, [self.positions(rank, done)])

    def left(self, done: int) -> Integers:
        """The intervals that no rank has read after some steps, dropped rows included."""
        stretches = [self.positions(rank, done) for rank in range(self.world_size)]
        end = stretches[-1][1]
        return _cut(self.intervals, [*stretches, (end, self.rows)])


def _share(rows: int, world_size: int, rank: int) -> int:
    return rows // world_size + (rank < rows % world_size)


def _first(rows: int, world_size: int, rank: int) -> int:
    return rank * (rows // world_size) + min(rank, rows % world_size)


def _cut(intervals: Integers, stretches: Iterable[tuple[int, int]]) -> Integers:
    """The parts of intervals that lie in stretches of positions counted along them."""
    lengths = intervals[:, 1] - intervals[:, 0]
    ends = np.cumsum(lengths)
    parts = []
    for start, stop in stretches:
        if start >= stop:
            continue
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        part = intervals[first : last + 1].copy()
        part[-1, 1] -= ends[last] - stop
        part[0, 0] += start - (ends[first] - lengths[first])
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class WindowSlice:
    """What a rank reads of one window.

    Attributes:
        row_groups: indices of the window's row groups in the split, in reading order; none is empty.
        rows: rows of the window.
        intervals: positions in the window's permuted rows that the rank takes, ascending.
    """

    window: int
    row_groups: Integers
    rows: int
    intervals: tuple[tuple[int, int], ...]

    @property
    def taken_rows(self) -> int:
        """Rows that the rank takes."""
        return sum(stop - start for start, stop in self.intervals)


class EpochPlan:
    """The plan of one epoch of one split.

    Args:
        row_groups: rows of every row group of the split, file by file.
        files: the number of the file of every row group, ascending from 0; by default all are in one.
        identity: names the dataset and the split; a part of the seed.
        seed: of the run; 0 is a seed like any other.
        epoch: counted from 0.
        global_batch_size: rows per step over all ranks.
        world_size: number of ranks.
        deals: [world_size, steps done] of the earlier part of this epoch, in order.
        last_batch: see `Deal`.
        shuffle: without it the sequence is the order of the files.
        window_rows: most rows that are permuted together, and held in memory by a rank at a time.
    """

    def __init__(
        self,
        row_groups: Sequence[int] | Integers,
        *,
        files: Sequence[int] | Integers | None = None,
        identity: str = "",
        seed: int = 0,
        epoch: int = 0,
        global_batch_size: int,
        world_size: int = 1,
        deals: Deals = (),
        last_batch: LastBatch = "keep",
        shuffle: bool = True,
        window_rows: int = 1 << 18,
    ) -> None:
        self.shuffle = shuffle
        self._entropy = [seed, epoch, int.from_bytes(identity.encode(), "big")]
        rows = np.asarray(row_groups, np.int64)
        filled = np.flatnonzero(rows)
        file_of = np.zeros(len(rows), np.int64) if files is None else np.asarray(files, np.int64)
        self._order = filled[self._mixed(file_of[filled])] if shuffle else filled
        self._window_groups = max(1, window_rows // int(rows.max())) if len(filled) else 1
        self._rows_in_order = rows[self._order]
        firsts = np.arange(0, len(filled), self._window_groups)
        self._window_rows = np.add.reduceat(self._rows_in_order, firsts) if len(filled) else firsts
        self._window_ends = np.cumsum(self._window_rows)
        self.rows = int(rows.sum())
        self.deal, self.done = self._replay(deals, world_size, global_batch_size, last_batch)

    def _mixed(self, file_of: Integers) -> Integers:
        """A permutation of row groups that keeps those of a bundle of files together."""
        groups = self._permutation(len(file_of), _GROUP_STREAM)
        if not len(groups):
            return groups
        place_of_file = self._permutation(int(file_of[-1]) + 1, _FILE_STREAM)
        bundle_of = place_of_file[file_of] // BUNDLE_FILES
        return groups[np.argsort(bundle_of[groups], kind="stable")]

    def _replay(self, deals: Deals, world_size: int, batch: int, last_batch: LastBatch) -> tuple[Deal, int]:
        """The deal that is going on, and how many of its steps are done."""
        current = Deal(np.array([[0, self.rows]]), deals[0][0] if deals else world_size, batch, last_batch)
        done = 0
        for number, (dealt_to, steps) in enumerate(deals):
            if number:
                current = Deal(current.left(done), dealt_to, batch, last_batch)
            done = steps
            if not 0 <= steps <= current.steps:
                raise ValueError(f"deals is {list(deals)}; expected at most {current.steps} steps in deal {number}")
        if current.world_size != world_size:
            return Deal(current.left(done), world_size, batch, last_batch), 0
        return current, done

    @property
    def steps(self) -> int:
        """Steps that are left of this epoch; the same on every rank."""
        return self.deal.steps - self.done

    @property
    def max_window_rows(self) -> int:
        """The most rows that a window of any epoch can have."""
        return min(self.rows, self._window_groups * int(self._rows_in_order.max(initial=0)))

    def batch_rows(self, rank: int) -> Iterator[int]:
        """Rows of each step that is left, on one rank."""
        for step in range(self.done, self.deal.steps):
            yield self.deal.batch_rows(step, rank)

    def rank_rows(self, rank: int) -> int:
        """Rows that a rank has still to read."""
        start, stop = self.deal.positions(rank, self.done)
        return stop - start

    def slices(self, rank: int) -> Iterator[WindowSlice]:
        """What a rank has still to read, window by window, in the order of the sequence."""
        window, taken = -1, list[tuple[int, int]]()
        for start, stop in self.deal.slice(rank, self.done).tolist():
            while start < stop:
                at = int(np.searchsorted(self._window_ends, start, side="right"))
                if at != window and taken:
                    yield self._slice(window, taken)
                    taken = []
                window = at
                offset = int(self._window_ends[at] - self._window_rows[at])
                end = min(stop, int(self._window_ends[at]))
                taken.append((start - offset, end - offset))
                start = end
        if taken:
            yield self._slice(window, taken)

    def _slice(self, window: int, taken: list[tuple[int, int]]) -> WindowSlice:
        first = window * self._window_groups
        groups = self._order[first : first + self._window_groups]
        return WindowSlice(window, groups, int(self._window_rows[window]), tuple(taken))

    def window_order(self, window: int) -> Integers:
        """The permutation of a window's rows: position in the sequence -> row, counted along its row groups."""
        rows = int(self._window_rows[window])
        return self._permutation(rows, _ROW_STREAM, window) if self.shuffle else np.arange(rows)

    def _permutation(self, length: int, *stream: int) -> Integers:
        seed = np.random.SeedSequence([*self._entropy, *stream])
        return np.random.Generator(np.random.PCG64(seed)).permutation(length)
