"""ANYWHERE. Files and folders as wholes: looked for, read, replaced atomically, created once, moved, removed."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import uuid
from collections.abc import Callable, Iterable, Iterator
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
    """Rename a folder or file; atomic on local disks and HDFS, a copy on object stores (commit by a pointer there).

    A copy has its files whose names begin with ``_`` last, ``_SUCCESS`` among them, and leaves nothing if it fails.

    Raises:
        StorageError: the source is missing, or cannot be moved; or something is in the target already.
    """
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
    if _is_there(filesystem_, target):  # the two would be merged
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
    if type(filesystem_).mv is not fsspec.AbstractFileSystem.mv:
        filesystem_.mv(source, target)
        return
    # Not the common `mv`: it takes brackets and stars in a name for a pattern.
    if not (files := filesystem_.find(source)):
        raise FileNotFoundError(source)
    marks = [file for file in files if posixpath.basename(file).startswith("_")]
    try:
        for some in (set(files).difference(marks), marks):
            _for_each(lambda file: filesystem_.cp_file(file, target + file[len(source) :]), some)
    except BaseException:
        with contextlib.suppress(OSError):  # what failed first tells more
            _remove_remote_tree(filesystem_, target)
        raise
    _remove_remote_tree(filesystem_, source)


def remove(url: str) -> None:
    """Remove a file or a whole folder; nothing happens if it is not there, or what is in it goes meanwhile."""
    filesystem_, path = filesystem(url)
    with storage_errors(url), contextlib.suppress(FileNotFoundError):
        if not is_local(url):
            _remove_remote_tree(filesystem_, path)
        elif os.path.isdir(path) and not os.path.islink(path):
            _remove_local_tree(path)
        else:
            os.unlink(path)


def remove_if_empty(url: str) -> None:
    """Remove a folder unless something is in it, or it is not there."""
    filesystem_, path = filesystem(url)
    with storage_errors(url):
        if is_local(url):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        elif not list_names(url):
            _remove_remote_folders(filesystem_, [path])


def _remove_remote_tree(filesystem_: fsspec.AbstractFileSystem, path: str) -> None:
    # Not `rm`: it takes brackets and stars in a name for a pattern.
    _for_each(lambda file: _if_there(filesystem_.rm_file, file), filesystem_.find(path))
    left = filesystem_.find(path, withdirs=True, detail=True)
    if any(entry["type"] == "file" for entry in left.values()):  # came meanwhile
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
    _remove_remote_folders(filesystem_, [*sorted(left, reverse=True), path])


def _remove_remote_folders(filesystem_: fsspec.AbstractFileSystem, folders: Iterable[str]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError, NotImplementedError):  # most stores have none
            filesystem_.rmdir(folder)


def _remove_local_tree(path: str) -> None:
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            _if_there(os.unlink, os.path.join(folder, name))
        for name in folders:
            inner = os.path.join(folder, name)
            _if_there(os.unlink if os.path.islink(inner) else os.rmdir, inner)
    os.rmdir(path)


def _if_there(removal: Callable[[str], object], path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        removal(path)


def _for_each(action: Callable[[str], object], files: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(action, files))
