"""RANK. Batches of a split as torch tensors: the rows that the epoch plan gives to this rank, in its order.

A reader thread fills windows of row groups into reused memory while the consumer gathers batches out of the window
before: one gather per batch and dtype, no Python per row or column.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any, Protocol

import torch

from pipeline.config.data import ReaderChoice, ReaderName
from pipeline.dataset import Dataset
from pipeline.errors import StorageError, UsageError
from pipeline.plan import Deals, EpochPlan, LastBatch
from pipeline.stack import reader_of
from pipeline.training.batches import Batch, Gather, ModelColumns, Taken, padded
from pipeline.training.device import Lane, lane_to, one_ahead
from pipeline.training.disk_cache import DiskCache
from pipeline.training.epoch import EpochReading, RowGroups
from pipeline.training.part_files import PartFiles
from pipeline.training.reads import GroupRead, Timings
from pipeline.training.windows import WINDOWS, ResidentRows, WindowRing

WINDOW_BYTES = 4 << 20
"""Two windows and a batch fit the share that a core has of a server's last-level cache, where rows are gathered up to
four times as fast as in main memory."""

WINDOW_ROWS = 8192
"""Wide rows get larger windows, so that a window is more than a few row groups dealt out as they are."""

logger = logging.getLogger(__name__)


def default_window_bytes(row_bytes: int) -> int:
    """Most bytes of rows that are shuffled together if nobody says otherwise: 4 MiB, up to 32 MiB for wide rows."""
    return max(WINDOW_BYTES, min(WINDOW_ROWS * row_bytes, 8 * WINDOW_BYTES))


class ReadGroups(Protocol):
    """The interface of the readers: fill row groups on other threads, yield each in order."""

    def __call__(self, reading: EpochReading, threads: int) -> Generator[GroupRead, None, None]: ...


class Loader:
    """Iterating gives one `Batch` per global step that is left of the epoch; the next iteration is the next epoch.

    Args:
        dataset: an opened version.
        split: train, validation or test.
        global_batch_size: rows per step over all ranks; this rank gives its share of them.
        rank: of `world_size` ranks.
        world_size: number of ranks.
        seed: of the order; 0 is a seed like any other.
        epoch: the epoch to begin with.
        deals: [world_size, steps done] of the earlier part of that epoch, see `pipeline.plan`.
        shuffle: False reads in the order of the files, for evaluation.
        last_batch: `keep` gives the rows that do not fill a step as a smaller one, `drop` leaves them out, `pad`
            fills them up with rows of zeros that have weight 0.
        window_bytes: most bytes of rows that are shuffled together, see `default_window_bytes`. The same value
            belongs to the same order.
        cache_bytes: a split that takes no more is kept in memory: later epochs read nothing.
        cache_folder: a local folder where files of a remote dataset are kept, also for other processes and later
            runs; by default they go with the loader. They are copied whole, and checked on the way.
        cache_folder_bytes: most bytes kept there; by default 2 GiB of a temporary folder, any number of a named one.
        with_ids: also give the id columns.
        reader: `petastorm`, or `pyarrow` for the same tensors without it; `auto` is Petastorm if installed.
        reader_threads: threads that read beside the consumer.
        device: where the tensors of batches are; to a GPU they are copied one batch ahead.

    Attributes:
        timings: seconds spent reading, checking, shuffling and waiting, since the loader was made.
        epoch: the epoch that an iteration would read now.
        reader: the one in use.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str = "train",
        *,
        global_batch_size: int = 1024,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epoch: int = 0,
        deals: Deals = (),
        shuffle: bool = True,
        last_batch: LastBatch = "keep",
        window_bytes: int | None = None,
        cache_bytes: int = 0,
        cache_folder: str | None = None,
        cache_folder_bytes: int | None = None,
        with_ids: bool = False,
        reader: ReaderChoice = "auto",
        reader_threads: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if split not in dataset.manifest.splits:
            raise UsageError(f"split is {split!r}; expected one of {', '.join(dataset.manifest.splits)}")
        self.dataset, self.split = dataset, split
        self.rank, self.world_size = rank, world_size
        self.timings = Timings()
        self.epoch, self._deals = epoch, deals
        self._columns = ModelColumns(dataset)
        self._ids = tuple(column.name for column in dataset.schema.with_role("id")) if with_ids else ()
        self._disk = DiskCache(cache_folder, cache_folder_bytes, self.timings)
        weakref.finalize(self, self._disk.discard)
        self._files = PartFiles(dataset.url, self._columns.fields, self._ids, self.timings, self._disk)
        self.reader = reader_of(reader)
        self._read_groups = _read_groups(self.reader)
        self._reader_threads = reader_threads
        self._device = torch.device(device)
        self._lane: Lane[Any] | None = lane_to(self._device)
        self._groups = RowGroups(dataset.manifest.splits[split])
        row_bytes = self._row_bytes = sum(field.row_bytes for field in self._columns.fields)
        self._plan_options: dict[str, Any] = {
            "row_groups": self._groups.rows,
            "files": self._groups.files,
            "identity": f"{dataset.content_id}/{split}",
            "seed": seed,
            "global_batch_size": global_batch_size,
            "world_size": world_size,
            "last_batch": last_batch,
            "shuffle": shuffle,
            "window_rows": max(1, (window_bytes or default_window_bytes(row_bytes)) // row_bytes),
        }
        rows = dataset.manifest.rows(split)
        fits = rows * row_bytes <= cache_bytes
        self._store: WindowRing | ResidentRows | None = ResidentRows(self._columns.fields, rows) if fits else None
        self._steps_now = 0

    def set_epoch(self, epoch: int, deals: Deals = ()) -> None:
        """What the next iteration reads."""
        self.epoch, self._deals, self._steps_now = epoch, deals, 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows that the loader holds while it is iterated, id columns aside: two windows, or the cache.

        A window is at most `window_bytes`, or one row group if that is larger. A batch, the permutations of
        two windows (8 bytes a row) and a chunk of a file being checked come on top.
        """
        if isinstance(self._store, ResidentRows):
            return self._store.bytes
        return WINDOWS * self.plan().max_window_rows * self._row_bytes

    def plan(self) -> EpochPlan:
        """The plan of what is left of the epoch."""
        return EpochPlan(**self._plan_options, epoch=self.epoch, deals=self._deals)

    @property
    def deals(self) -> list[list[int]]:
        """The position inside the epoch: [world_size, steps done], the batch given last included."""
        deals = [list(deal) for deal in self._deals]
        if not deals or deals[-1][0] != self.world_size:
            deals.append([self.world_size, 0])
        deals[-1][1] += self._steps_now
        return deals

    def __len__(self) -> int:
        """Steps that are left of the epoch."""
        return self.plan().steps

    def __iter__(self) -> Iterator[Batch]:
        plan = self.plan()
        self._steps_now = 0
        store = self._take_store(plan)
        reading = EpochReading(plan, self.rank, self._groups, self._files, store, self.timings)
        done = self._read_groups(reading, self._reader_threads)
        windows = reading.windows(done)
        pinned = self._lane is not None and self._lane.pinned
        gather = Gather(windows, self._columns.fields, self._ids, self.timings, pinned)
        try:
            with contextlib.closing(done):
                yield from self._batches(plan, gather)
        except Exception:
            self._disk.discard()
            raise
        self._put_back(store)
        self.set_epoch(self.epoch + 1)
        logger.debug("epoch read: %s", self.timings)

    def _take_store(self, plan: EpochPlan) -> WindowRing | ResidentRows:
        """The memory for rows; a ring serves one iteration at a time."""
        if isinstance(self._store, ResidentRows):
            return self._store
        ring, self._store = self._store, None
        return ring or WindowRing(self._columns.fields, plan.max_window_rows)

    def _put_back(self, store: WindowRing | ResidentRows) -> None:
        if isinstance(store, WindowRing):
            store.reset()
        self._store = store

    def _batches(self, plan: EpochPlan, gather: Gather) -> Iterator[Batch]:
        taken = (gather.take(rows) for rows in plan.batch_rows(self.rank))
        unpack = partial(self._unpack, plan)
        batches = map(unpack, taken) if self._lane is None else one_ahead(taken, unpack, self._lane)
        for step, batch in enumerate(batches, start=1):
            self._steps_now = step
            yield batch
        if gather.rows_taken != plan.rank_rows(self.rank) or gather.rows_left:
            raise StorageError(
                f"split {self.split} of {self.dataset.url} gave {gather.rows_taken} rows to rank {self.rank}; expected "
                f"{plan.rank_rows(self.rank)}; this is a bug, please report it"
            )

    def _unpack(self, plan: EpochPlan, taken: Taken) -> Batch:
        columns, extras = taken
        if self._lane is not None:
            columns = {name: tensor.to(self._device, non_blocking=True) for name, tensor in columns.items()}
        batch = self._columns.batch(columns, extras if self._ids else None)
        if plan.deal.last_batch == "pad":
            batch = padded(batch, plan.deal.full_batch_rows(self.rank))
        return batch


def _read_groups(name: ReaderName) -> ReadGroups:
    if name == "petastorm":
        from pipeline.training.reader_petastorm import read_groups as through_petastorm

        return through_petastorm
    from pipeline.training.reader_pyarrow import read_groups as through_pyarrow

    return through_pyarrow
