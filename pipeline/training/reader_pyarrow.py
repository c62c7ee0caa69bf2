"""RANK. Reads planned row groups with plain threads and pyarrow alone: where Petastorm is not installed."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

from pipeline.training.epoch import EpochReading
from pipeline.training.reads import GroupRead


def read_groups(reading: EpochReading, threads: int) -> Generator[GroupRead, None, None]:
    """Fill the missing row groups on other threads; yields each when it is done, in order, and closes at the end."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="reader")
    try:
        done = executor.map(reading.fill, reading.missing)
        for read, _ in zip(reading.missing, done, strict=True):
            yield read
    finally:
        reading.stop()
        executor.shutdown(wait=True, cancel_futures=True)
        reading.close()
