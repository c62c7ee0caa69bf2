"""RANK. Part files that lie elsewhere: ranges of them over fsspec, and retries.

Credentials come from the environment, as the filesystem's own package reads them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.training.parquet_pages import Chunk, NotPlain

ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.2
_GAP_BYTES = 1 << 16
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_CLIENTS = {"aiohttp", "azure", "botocore", "google", "gcsfs", "requests", "urllib3"}
"""Packages whose errors are about the network, though not all of them are `OSError`."""

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def with_retries(url: str, operation: Callable[[], Result]) -> Result:
    """Do something with a storage that may fail for a moment: several attempts, each after twice the delay.

    Raises:
        StorageError: it failed every time, or in a way that another attempt cannot mend.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with storage.storage_errors(url):
                return operation()
        except Exception as error:
            if not is_transient(error) or storage.is_local(url):
                raise
            if attempt == ATTEMPTS:
                raise StorageError(
                    f"{url} could not be read: {_reason(error)}; expected an answer within {ATTEMPTS} attempts; "
                    "check the storage and run the same command again"
                ) from error
            delay = FIRST_DELAY_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            logger.warning("reading %s failed, next attempt in %.1f s: %s", url, delay, _reason(error))
            time.sleep(delay)
    raise AssertionError("unreachable")


def _reason(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error


def is_transient(error: BaseException | None) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, StorageError):
        return is_transient(error.__cause__)
    if isinstance(error, _FINAL):
        return False
    return isinstance(error, (OSError, TimeoutError)) or type(error).__module__.partition(".")[0] in _CLIENTS


class RemoteRanges:
    """Some ranges of a remote file, fetched at once; neighbours in one request."""

    def __init__(self, url: str, chunks: Iterable[Chunk]) -> None:
        self._ranges: list[tuple[int, bytes]] = []
        wanted = _merged(sorted((chunk.offset, chunk.offset + chunk.size) for chunk in chunks))
        filesystem, path = storage.filesystem(url)
        starts, ends = [start for start, _ in wanted], [end for _, end in wanted]
        parts = filesystem.cat_ranges([path] * len(wanted), starts, ends, on_error="raise")
        self._ranges = list(zip(starts, parts, strict=True))

    def __enter__(self) -> RemoteRanges:
        return self

    def __exit__(self, *_: object) -> None:
        self._ranges = []

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes at an offset."""
        return bytes(self._view(offset, size))

    def read_into(self, offset: int, memory: memoryview[int]) -> None:
        """Fill memory."""
        found = self._view(offset, len(memory))
        if len(found) != len(memory):
            raise NotPlain("the file ends too early")
        memory[:] = found

    def _view(self, offset: int, size: int) -> memoryview[int]:
        for start, data in self._ranges:
            if start <= offset < start + len(data):
                return memoryview(data)[offset - start : offset - start + size]
        raise NotPlain(f"nothing was fetched at {offset}")


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in ranges:
        if merged and start - merged[-1][1] <= _GAP_BYTES:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
