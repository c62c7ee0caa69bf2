"""ANYWHERE. The only place that touches URLs: local paths and every filesystem that fsspec knows.

A URL may be a plain path, ``file://...`` or ``scheme://...``; spaces, brackets and unicode are ordinary
characters in it, never patterns. Writes are atomic: a reader sees the old content, the new one, or nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import posixpath
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote

import fsspec

from pipeline.errors import StorageError


def is_local(url: str) -> bool:
    """Whether the URL names a file of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The absolute path behind a local URL; percent escapes are undone for ``file://`` URLs only."""
    if url.startswith("file://"):
        return unquote(url.removeprefix("file://").removeprefix("localhost"))
    return os.path.abspath(url)


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL or path."""
    return posixpath.join(url.rstrip("/") or "/", *parts) if parts else url


def resolve(url: str, base: str) -> str:
    """Make a relative path absolute against the folder ``base``; URLs and absolute paths stay."""
    if "://" in url or os.path.isabs(url):
        return url
    return join(base, url) if "://" in base else os.path.normpath(os.path.join(base, url))


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec filesystem of a URL, and the path inside it."""
    if is_local(url):
        return fsspec.filesystem("file"), local_path(url)
    filesystem, path = fsspec.core.url_to_fs(url)
    return filesystem, path


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what filesystems raise into a `StorageError` that names the URL and what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{url} is missing; expected a readable file; check the path") from error
    except OSError as error:
        raise StorageError(f"{url} is not usable: {error.strerror or error}; {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "expected write permission; choose another folder or change its permissions"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a file stands where a folder is needed; choose another path"
    return "check the path and the storage, then run the same command again"


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        return bool(filesystem_.exists(path))


def list_names(url: str) -> list[str]:
    """The sorted names of what lies directly in a folder; empty if the folder does not exist."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        try:
            entries = filesystem_.ls(path, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            return []
    return sorted(posixpath.basename(entry.rstrip("/")) for entry in entries)


def size(url: str) -> int:
    """The size of a file in bytes."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        return int(filesystem_.size(path))


def open_read(url: str) -> IO[bytes]:
    """Open a file for reading; the caller closes it."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        return filesystem_.open(path, "rb")  # type: ignore[no-any-return]


def read_bytes(url: str) -> bytes:
    """The whole content of a file."""
    with open_read(url) as stream, storage_errors(url):
        return stream.read()


def make_folder(url: str) -> None:
    """Create a folder and its parents; nothing happens if it exists."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        filesystem_.makedirs(path, exist_ok=True)


def write_bytes(url: str, data: bytes) -> None:
    """Replace a file atomically and durably."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        if not is_local(url):
            filesystem_.pipe_file(path, data)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = _write_temporary(path, data)
        try:
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        sync_folder(os.path.dirname(path))


def put_if_absent(url: str, data: bytes) -> bool:
    """Create a file only if nobody has; True if this call created it, and then with all its content."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        if not is_local(url):
            return _put_remote_if_absent(filesystem_, path, data)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = _write_temporary(path, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        sync_folder(os.path.dirname(path))
        return True


def _put_remote_if_absent(filesystem_: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    try:
        filesystem_.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def _write_temporary(path: str, data: bytes) -> str:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return temporary


def sync_folder(path: str) -> None:
    """Make renames inside a local folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_folder(source: str, target: str) -> None:
    """Rename a folder; atomic on local disks and HDFS, a copy on object stores (commit by a pointer there)."""
    filesystem_, source_path = filesystem(source)
    _, target_path = filesystem(target)
    with storage_errors(target):
        if is_local(source):
            os.makedirs(os.path.dirname(target_path), exist_ok=True)
            os.rename(source_path, target_path)
            sync_folder(os.path.dirname(target_path))
        else:
            filesystem_.mv(source_path, target_path, recursive=True)


def remove(url: str) -> None:
    """Remove a file or a whole folder; nothing happens if it is not there."""
    filesystem_, path = filesystem(url)
    with storage_errors(url), contextlib.suppress(FileNotFoundError):
        if not is_local(url):
            _remove_remote_tree(filesystem_, path)
        elif os.path.isdir(path) and not os.path.islink(path):
            _remove_local_tree(path)
        else:
            os.unlink(path)


def _remove_remote_tree(filesystem_: fsspec.AbstractFileSystem, path: str) -> None:
    # Not `rm`: it takes brackets and stars in a name for a pattern.
    for file in filesystem_.find(path):
        filesystem_.rm_file(file)
    with contextlib.suppress(OSError, NotImplementedError):
        for folder in sorted(filesystem_.find(path, withdirs=True), reverse=True):
            filesystem_.rmdir(folder)
        filesystem_.rmdir(path)


def _remove_local_tree(path: str) -> None:
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in folders:
            inner = os.path.join(folder, name)
            if os.path.islink(inner):
                os.unlink(inner)
            else:
                os.rmdir(inner)
    os.rmdir(path)


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
def open_write(url: str, durable: bool = True) -> Iterator[DigestingWriter]:
    """Write a new file and know its `Digest`; on an error nothing is left under the name.

    Local files are fsynced, unless they are not to be ``durable``. The name must be unique to this writer:
    publishing is a matter of the file that refers to it.
    """
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        if is_local(url):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with filesystem_.open(path, "wb") as stream:
                writer = DigestingWriter(stream)
                yield writer
                if is_local(url) and durable:
                    stream.flush()
                    os.fsync(stream.fileno())
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


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, shortest round-trip floats, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_of(value: Any) -> str:
    """The sha256 of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def format_json(kind: str, number: int, value: dict[str, Any]) -> bytes:
    """A readable JSON file's bytes, with ``format: <kind>/<number>`` as its first key."""
    return (json.dumps({"format": f"{kind}/{number}", **value}, indent=1, ensure_ascii=False) + "\n").encode()


def write_json(url: str, kind: str, number: int, value: dict[str, Any]) -> None:
    """Write a JSON file of a known format, atomically."""
    write_bytes(url, format_json(kind, number, value))


def parse_json(url: str, data: bytes, kind: str, number: int) -> dict[str, Any]:
    """Parse what `format_json` made; the current and the previous number are understood.

    Raises:
        StorageError: not JSON, of another kind, or written by a newer version of this package.
    """
    try:
        value = json.loads(data)
        found_kind, found_number = value.pop("format").split("/")
        found = int(found_number)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StorageError(
            f"{url} is not a {kind} file; expected JSON with format {kind}/{number}; it may be corrupt"
        ) from error
    if found_kind != kind or found not in (number, number - 1):
        raise StorageError(
            f"{url} has format {found_kind}/{found}; expected {kind}/{number}; "
            "it is another kind of file or was written by another version of this package"
        )
    return dict(value)


def read_json(url: str, kind: str, number: int) -> dict[str, Any]:
    """Read a JSON file of a known format."""
    return parse_json(url, read_bytes(url), kind, number)
