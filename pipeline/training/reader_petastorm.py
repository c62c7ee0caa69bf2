"""RANK. Reads planned row groups through Petastorm's `Reader`; the only module that reads with Petastorm.

Petastorm gives the reading of many files, the ventilator and the pool protocol. What is ours, through public
constructor arguments: which row groups and in which order (`worker_class`), and the pool (`reader_pool`), because
Petastorm 0.13.1's thread pool asks whether all workers are done before it asks whether all work is handed out, and
so delivers no row at all in a few of a hundred epochs.

Petastorm is given explicit file lists, never a folder: opening a folder unpickles its ``_common_metadata``.
"""

from __future__ import annotations

import queue
import re
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from petastorm.reader import Reader
from petastorm.workers_pool import EmptyResultError
from petastorm.workers_pool.worker_base import WorkerBase

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.training.epoch import EpochReading
from pipeline.training.reads import GroupRead
from pipeline.training.remote import with_retries

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from pyarrow.filesystem import DaskFileSystem

# Petastorm uses pyarrow's legacy datasets on purpose and warns dozens of times per reader, from its own modules.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")
warnings.filterwarnings("ignore", category=FutureWarning, module=r"pyarrow\.(parquet|filesystem)")


def read_groups(reading: EpochReading, threads: int) -> Generator[GroupRead, None, None]:
    """Fill the missing row groups on other threads; yields each when it is done, in order, and closes at the end."""
    if not reading.missing:
        return
    try:
        reader = _open(reading, threads)
    except BaseException:
        reading.stop()
        reading.close()
        raise
    try:
        for _ in reading.missing:
            yield next(reader)
    except StopIteration:
        first = reading.files.location(reading.missing[0].part)
        raise StorageError(f"{first} and the files beside it gave fewer row groups than planned") from None
    finally:
        reading.stop()
        # Not as a context manager: leaving that prints to stdout.
        reader.stop()
        reader.join()
        reading.close()


def _open(reading: EpochReading, threads: int) -> Reader:
    files = reading.files
    parts = {read.part.path: read.part for read in reading.missing}
    urls = [files.location(part) for part in parts.values()]
    filesystem, paths = FsspecBridge(storage.filesystem(urls[0])[0]), [storage.filesystem(url)[1] for url in urls]
    names = [*(field.name for field in files.fields), *files.extras]

    def reader() -> Reader:
        return Reader(
            filesystem,
            paths,
            schema_fields=[re.escape(name) for name in names],
            reader_pool=OrderedThreadPool(threads),
            worker_class=_Workers(reading),
            shuffle_row_groups=False,
            num_epochs=1,
            is_batched_reader=True,
        )

    try:
        return with_retries(urls[0], reader)
    except Exception:
        for part in parts.values():
            files.check(part)  # names the file that is missing or corrupt, if there is one
        raise


class FsspecBridge(DaskFileSystem):  # type: ignore[misc]
    """What the legacy dataset asks of a filesystem, answered by fsspec.

    With pyarrow 14 `pyarrow.parquet.ParquetDataset` takes the legacy path, the only one that Petastorm understands,
    only for instances of `pyarrow.filesystem.FileSystem`; fsspec's own are refused.
    """

    def __init__(self, fs: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(fs)

    def open(self, path: str, mode: str = "rb") -> Any:
        return with_retries(self.fs.unstrip_protocol(path), lambda: self.fs.open(path, mode))

    def isdir(self, path: str) -> bool:
        return bool(self.fs.isdir(path))

    def isfile(self, path: str) -> bool:
        return bool(self.fs.isfile(path))

    def walk(self, path: str) -> Iterator[Any]:
        return iter(self.fs.walk(path))


class _Workers:
    """Stands for a worker class: makes workers that know the plan."""

    def __init__(self, reading: EpochReading) -> None:
        self._reading = reading

    def __call__(self, worker_id: int, publish: Callable[[Any], None], arguments: Sequence[Any]) -> _Worker:
        return _Worker(worker_id, publish, arguments, self._reading)

    @staticmethod
    def new_results_queue_reader() -> _Results:
        return _Results()


class _Worker(WorkerBase):  # type: ignore[misc]
    """The n-th piece that Petastorm hands out stands for the n-th planned read; pieces beyond the plan for nothing."""

    def __init__(
        self, worker_id: int, publish: Callable[[Any], None], arguments: Sequence[Any], reading: EpochReading
    ) -> None:
        super().__init__(worker_id, publish, arguments)
        self._reading = reading

    def process(self, piece_index: int, worker_predicate: Any, shuffle_row_drop_partition: Any) -> None:
        if piece_index < len(self._reading.missing):
            read = self._reading.missing[piece_index]
            self._reading.fill(read)
            self.publish_func(read)


class _Results:
    """Takes what workers publish as it is."""

    batched_output = True

    def read_next(self, pool: OrderedThreadPool, schema: Any, ngram: Any) -> GroupRead:
        try:
            read: GroupRead = pool.get_results()
        except EmptyResultError:
            raise StopIteration from None
        return read


class OrderedThreadPool:
    """Petastorm's pool protocol: results come in the order of the work, and none is lost."""

    def __init__(self, workers_count: int) -> None:
        self.workers_count = workers_count
        self._work: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self._results: dict[int, Any] = {}
        self._handed_out = 0
        self._next = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._ventilator: Any = None

    def start(self, worker_class: Any, worker_args: Any = None, ventilator: Any = None) -> None:
        """Start the threads, then the ventilator that hands out the work."""
        self._ventilator = ventilator
        for number in range(self.workers_count):
            thread = threading.Thread(
                target=self._run, args=(worker_class, number, worker_args), name=f"reader-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        ventilator.start()

    def ventilate(self, **item: Any) -> None:
        """Take one piece of work. It is only a number, so any amount may wait; memory is bounded by the windows."""
        with self._changed:
            self._work.put((self._handed_out, item))
            self._handed_out += 1
        self._ventilator.processed_item()

    def _run(self, worker_class: Any, number: int, worker_args: Any) -> None:
        published: list[Any] = []
        worker = worker_class(number, published.append, worker_args)
        while (task := self._work.get()) is not None and not self._stopped:
            ordinal, item = task
            try:
                worker.process(**item)
            except BaseException as error:
                published.append(error)
            with self._changed:
                self._results[ordinal] = published.copy()
                self._changed.notify_all()
            published.clear()

    def get_results(self) -> Any:
        """The next result in order.

        Raises:
            EmptyResultError: there is no more. The ventilator is asked first: it may hand out the last work
                between two questions, and what it has handed out by the second question is then counted.
        """
        with self._changed:
            while not self._stopped:
                finished = self._ventilator.completed()
                if self._next in self._results:
                    results = self._results.pop(self._next)
                    self._next += 1
                    if results and isinstance(results[0], BaseException):
                        raise results[0]
                    if results:
                        return results[0]
                elif finished and self._next == self._handed_out:
                    break
                else:
                    self._changed.wait(0.05)
        raise EmptyResultError

    def stop(self) -> None:
        """Let threads end after the work in hand."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for _ in self._threads:
            self._work.put(None)
        self._ventilator.stop()

    def join(self) -> None:
        """Wait for the threads."""
        for thread in self._threads:
            thread.join()

    @property
    def diagnostics(self) -> dict[str, int]:
        """What Petastorm's `Reader.diagnostics` shows."""
        return {"output_queue_size": len(self._results)}
