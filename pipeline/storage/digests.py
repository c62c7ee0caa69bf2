"""ANYWHERE. Files with their checksums: computed while they are written, or in one reading."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from pipeline.storage.files import open_read
from pipeline.storage.urls import filesystem, is_local, storage_errors


@dataclass(frozen=True)
class Digest:
    """Size and checksums of a file: crc32 is cheap enough for every open, sha256 for deep checks."""

    bytes: int
    crc32: int
    sha256: str


class DigestingWriter:
    """A binary stream that computes the `Digest` of what passes through it, so that no file is read back."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self._crc32 = 0
        self._bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Pass bytes on and count them in."""
        view = memoryview(data).cast("B")
        self._sha256.update(view)
        self._crc32 = zlib.crc32(view, self._crc32)
        self._bytes += len(view)
        self._stream.write(view)
        return len(view)

    def tell(self) -> int:
        """How many bytes have passed."""
        return self._bytes

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()

    def close(self) -> None:
        """Leave the stream below open: who opened it closes it."""
        self.closed = True

    def writable(self) -> bool:
        """Always true."""
        return True

    def readable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Never: a digest cannot go back."""
        return False

    @property
    def digest(self) -> Digest:
        """Of all bytes so far."""
        return Digest(self._bytes, self._crc32, self._sha256.hexdigest())


@contextlib.contextmanager
def open_write(url: str) -> Iterator[DigestingWriter]:
    """Write a new file that will last and know its `Digest`: as `open_new`, and fsynced where it is local.

    Publishing is a matter of the file that refers to it.
    """
    with open_new(url) as stream:
        yield DigestingWriter(stream)
        if is_local(url):
            stream.flush()
            os.fsync(stream.fileno())


@contextlib.contextmanager
def open_new(url: str) -> Iterator[IO[bytes]]:
    """Write a new file; on an error nothing is left under the name, which must be unique to this writer."""
    filesystem_, path = filesystem(url)
    with storage_errors(url, writes=True):
        if is_local(url):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with filesystem_.open(path, "wb") as stream:
                yield stream
        except BaseException:
            with contextlib.suppress(OSError):
                filesystem_.rm_file(path)
            raise


def digest_file(url: str, chunk_bytes: int = 1 << 22, deep: bool = True) -> Digest:
    """Read a file once and return its `Digest`; ``deep=False`` leaves sha256 empty and is ten times faster."""
    sha256, crc32, total = hashlib.sha256(), 0, 0
    with open_read(url) as stream, storage_errors(url):
        while chunk := stream.read(chunk_bytes):
            crc32 = zlib.crc32(chunk, crc32)
            total += len(chunk)
            if deep:
                sha256.update(chunk)
    return Digest(total, crc32, sha256.hexdigest() if deep else "")
