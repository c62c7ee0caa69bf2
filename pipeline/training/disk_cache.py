"""RANK. Remote part files on a local disk: fetched once, checked on the way, dropped when the space is needed.

Row groups are read in a shuffled order, a checksum needs a file's bytes in theirs: a file is therefore copied whole
before its first row group is read, and no byte of it travels twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import storage
from pipeline.dataset import PartFile
from pipeline.plan import BUNDLE_FILES
from pipeline.training.checks import corrupt, is_published, remember
from pipeline.training.reads import Timings
from pipeline.training.remote import with_retries

TEMPORARY_BYTES = 2 << 30
_CHUNK_BYTES = 4 << 20

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """Nobody wants the file any more."""


def never() -> bool:
    """Of a copy that somebody waits for."""
    return False


class DiskCache:
    """Part files under names of their content, so that versions, datasets and processes may share a folder.

    Args:
        folder: created if it does not exist; None is a temporary one, until `discard`.
        limit_bytes: files that were not used for longest go when a new one would exceed it; None is 2 GiB of a
            temporary folder, any number of a named one.
        timings: where the time goes that fetching and checking take.
    """

    def __init__(self, folder: str | None, limit_bytes: int | None, timings: Timings) -> None:
        self._folder = Path(folder) if folder is not None else None
        self._temporary = folder is None
        self._limit_bytes = limit_bytes or (TEMPORARY_BYTES if folder is None else sys.maxsize)
        self._timings = timings
        self._lock = threading.Lock()
        self._fetching: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._reserved = 0

    def discard(self) -> None:
        """Remove a temporary folder now; it is made again when it is needed."""
        with self._lock:
            if self._temporary and self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _place(self, part: PartFile) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="part-files-"))
            return self._folder / f"{part.sha256 or part.crc32}-{part.bytes}.parquet"

    def room_for(self, parts: Sequence[PartFile]) -> int:
        """How many files as large as the largest of these fit."""
        largest = max(1, *(part.bytes for part in parts))
        if self._limit_bytes < largest * min(BUNDLE_FILES, len(parts)):
            logger.warning(
                "cache_folder_bytes is %d; expected at least %d, or files are fetched again and again",
                self._limit_bytes,
                largest * BUNDLE_FILES,
            )
        return self._limit_bytes // largest

    def fetch(self, url: str, part: PartFile, stopped: Callable[[], bool] = never) -> str:
        """The path of a part file that is whole and the one that was published; copied if it is not here.

        Raises:
            StorageError: the file cannot be read, is another one, or the disk is full.
            Stopped: `stopped` said so before the copy was whole.
        """
        path = self._place(part)
        with self._lock:
            fetching = self._fetching[path]
        with fetching, storage.storage_errors(str(path)):
            if not (path.exists() and is_published(str(path), part, self._timings)):
                self._copy(url, part, path, stopped)
            with contextlib.suppress(FileNotFoundError):  # of a process that needs the room
                os.utime(path)
        return str(path)

    def _copy(self, url: str, part: PartFile, path: Path, stopped: Callable[[], bool]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with self._lock:
            self._make_room(path.parent, part.bytes)
            self._reserved += part.bytes
        started = time.perf_counter()
        try:
            with_retries(url, lambda: _copy_checked(url, part, path, stopped))
        finally:
            self._timings.add("fetching", started)
            with self._lock:
                self._reserved -= part.bytes

    def _make_room(self, folder: Path, wanted: int) -> None:
        files = []
        for path in folder.glob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files) + self._reserved
        for _, size, path in sorted(files):
            if total + wanted <= self._limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _copy_checked(url: str, part: PartFile, path: Path, stopped: Callable[[], bool]) -> None:
    """Other processes see the copy whole, or not at all."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    size = crc32 = 0
    try:
        with storage.open_read(url) as source, temporary.open("xb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                size, crc32 = size + len(chunk), zlib.crc32(chunk, crc32)
                target.write(chunk)
                if stopped():
                    raise Stopped
        if (size, crc32) != (part.bytes, part.crc32):
            raise corrupt(url, part)
        temporary.replace(path)
        remember(str(path), part)
    finally:
        temporary.unlink(missing_ok=True)
