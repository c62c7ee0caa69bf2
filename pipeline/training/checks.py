"""RANK. Whether part files are the ones that were published: size and crc32, looked at once per process."""

from __future__ import annotations

import threading
import time

from pipeline import storage
from pipeline.dataset import PartFile
from pipeline.errors import StorageError
from pipeline.training.reads import Timings

_checked: set[tuple[str, int, int]] = set()
_lock = threading.Lock()


def is_published(source: str, part: PartFile, timings: Timings) -> bool:
    """Whether a file of this machine holds what the manifest says; it is read the first time only.

    Raises:
        StorageError: it is missing or cannot be read.
    """
    with _lock:
        if (source, part.bytes, part.crc32) in _checked:
            return True
    started = time.perf_counter()
    digest = storage.digest_file(source, deep=False)
    timings.add("checking", started)
    if (digest.bytes, digest.crc32) != (part.bytes, part.crc32):
        return False
    remember(source, part)
    return True


def remember(source: str, part: PartFile) -> None:
    """A file has been compared with the manifest as it was written."""
    with _lock:
        _checked.add((source, part.bytes, part.crc32))


def forget() -> None:
    """Look at every file again, as a fresh process does."""
    with _lock:
        _checked.clear()


def corrupt(url: str, part: PartFile) -> StorageError:
    """The error about a file that is another one than was published."""
    return StorageError(
        f"{url} is corrupt: its bytes have another size or crc32; expected {part.bytes} bytes with crc32 "
        f"{part.crc32:08x}; restore the file or publish the dataset again"
    )
