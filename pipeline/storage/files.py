"""ANYWHERE. Files and folders as wholes: looked for, read, replaced atomically, created once, moved, removed."""

from __future__ import annotations

import contextlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import fsspec

from pipeline.storage.urls import filesystem, is_local, storage_errors

_AT_ONCE = 16
"""Requests to a store that are under way at a time."""


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        return _is_there(filesystem_, path)


def _is_there(filesystem_: fsspec.AbstractFileSystem, path: str) -> bool:
    # Not `exists`: what goes wrong, Ctrl-C included, is "not there" to fsspec's common one.
    filesystem_.invalidate_cache(path)  # of listings: others write too
    try:
        filesystem_.info(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: no file can have such a name
        return False
    return True


def list_names(url: str) -> list[str]:
    """The sorted names of what lies directly in a folder; empty if the folder does not exist."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        try:
            entries = filesystem_.ls(path, detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
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


def write_bytes(url: str, data: bytes) -> None:
    """Replace a file atomically and durably."""
    filesystem_, path = filesystem(url)
    with storage_errors(url, writes=True):
        if not is_local(url):
            filesystem_.pipe_file(path, data)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with _temporary(path, data) as temporary:
            os.replace(temporary, path)
        sync_folder(os.path.dirname(path))


def put_if_absent(url: str, data: bytes) -> bool:
    """Create a file only if nobody has; True if this call created it, and then with all its content."""
    filesystem_, path = filesystem(url)
    with storage_errors(url, writes=True):
        if not is_local(url):
            return _put_remote_if_absent(filesystem_, path, data)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        sync_folder(os.path.dirname(path))
        return True


def _put_remote_if_absent(filesystem_: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    if _is_there(filesystem_, path):  # some stores do not know the condition below, see `pipeline.storage.exclusive`
        return False
    try:
        filesystem_.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _temporary(path: str, data: bytes) -> Iterator[str]:
    """A durable file beside ``path``, gone at exit unless it was renamed."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


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
            _move_remote_tree(filesystem_, source_path, target_path)


def _move_remote_tree(filesystem_: fsspec.AbstractFileSystem, source: str, target: str) -> None:
    if type(filesystem_).mv is not fsspec.AbstractFileSystem.mv:
        filesystem_.mv(source, target)
        return
    # Not the common `mv`: it takes brackets and stars in a name for a pattern.
    files = filesystem_.find(source)
    if not files:
        raise FileNotFoundError(source)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda file: filesystem_.cp_file(file, target + file[len(source) :]), files))
    _remove_remote_tree(filesystem_, source)


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
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(filesystem_.rm_file, filesystem_.find(path)))
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
