"""ANYWHERE. What a URL names: a path here or in a filesystem that fsspec knows, and what may go wrong there."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Iterator
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
