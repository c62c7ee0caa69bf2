"""RANK. Reads planned row groups with plain threads: for the day that Petastorm cannot be installed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.training.part_files import PartFiles
from pipeline.training.reads import GroupRead
from pipeline.training.windows import RowStore


def read_groups(
    files: PartFiles, reads: Sequence[GroupRead], store: RowStore, threads: int
) -> Generator[GroupRead, None, None]:
    """Fill row groups on other threads; yields each when it is done, in order, and closes the store at the end."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="reader")
    try:
        done = executor.map(partial(store.fill, files), reads)
        for read, _ in zip(reads, done, strict=True):
            yield read
    finally:
        store.close()
        executor.shutdown(wait=True, cancel_futures=True)
