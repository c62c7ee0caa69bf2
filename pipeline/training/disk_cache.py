"""RANK. Remote part files on a local disk: fetched once, checked, dropped when the space is needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from pathlib import Path

from pipeline import storage
from pipeline.dataset import PartFile
from pipeline.training.remote import with_retries

_CHUNK_BYTES = 4 << 20


class DiskCache:
    """Part files under names of their content, so that versions, datasets and processes may share a folder.

    Args:
        folder: created if it does not exist.
        limit_bytes: files that were not used for longest go when a new one would exceed it.
    """

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self._folder = Path(folder)
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()

    def path(self, part: PartFile) -> Path:
        """Where a part file lies, if it is here."""
        return self._folder / f"{part.sha256 or part.crc32}-{part.bytes}.parquet"

    def fetch(self, url: str, part: PartFile) -> Path:
        """A part file's path, after copying it if it is not here; other processes see it whole or not at all.

        Raises:
            StorageError: the file cannot be read, or the disk is full.
        """
        path = self.path(part)
        with self._lock, storage.storage_errors(str(self._folder)):
            if not path.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._make_room(part.bytes)
                with_retries(url, lambda: _copy(url, path))
            os.utime(path)
        return path

    def drop(self, part: PartFile) -> None:
        """Forget a file, because it is not what it should be."""
        self.path(part).unlink(missing_ok=True)

    def _make_room(self, wanted: int) -> None:
        files = []
        for path in self._folder.glob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total + wanted <= self._limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _copy(url: str, path: Path) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with storage.open_read(url) as source, temporary.open("xb") as target:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
