"""ANYWHERE. What a URL names: a path here or in a filesystem that fsspec knows, and what may go wrong there."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

import fsspec

from pipeline.errors import ConfigError, ServiceError, StorageError

_HALF_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(?!/)(.*)")
_HADOOP = "a Hadoop client (HADOOP_HOME, JAVA_HOME and CLASSPATH; `hadoop classpath --glob`)"

DRIVERS = {
    "s3": "package s3fs",
    "s3a": "package s3fs",
    "gs": "package gcsfs",
    "gcs": "package gcsfs",
    "abfs": "package adlfs",
    "abfss": "package adlfs",
    "az": "package adlfs",
    "hdfs": _HADOOP,
    "webhdfs": "package requests",
}
"""What the usual remote filesystems need beside fsspec."""


def is_local(url: str) -> bool:
    """Whether the URL names a file of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The absolute path behind a local URL; percent escapes are undone for ``file://`` URLs only.

    Raises:
        ConfigError: it is neither a path nor a URL.
    """
    if url.startswith("file://"):
        return unquote(url.removeprefix("file://").removeprefix("localhost"))
    refuse_half_url(url)
    return os.path.abspath(url)


def is_whole(url: str) -> bool:
    """Whether it is a path or a URL, and not Hadoop's ``scheme:/path``."""
    return _HALF_URL.match(url) is None


def refuse_half_url(url: str) -> None:
    """Refuse Hadoop's ``scheme:/path``, which would become a folder of that name below the working directory.

    Raises:
        ConfigError: names the form that is meant.
    """
    if not (found := _HALF_URL.match(url)):
        return
    scheme, rest = found[1].lower(), found[2]
    meant = {
        "dbfs": f"/dbfs/{rest} or a path below /Volumes",
        "file": f"/{rest} or file:///{rest}",
        "hdfs": f"hdfs:///{rest} or hdfs://host:port/{rest}",
    }.get(scheme, f"{scheme}://{rest}")
    raise ConfigError(f"{url} is neither a path nor a URL; expected {meant}; write it so")


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL or path."""
    return posixpath.join(url.rstrip("/") or "/", *parts) if parts else url


def resolve(url: str, base: str) -> str:
    """Make a relative path absolute against the folder ``base``; URLs and absolute paths stay.

    Raises:
        ConfigError: it is neither a path nor a URL.
    """
    refuse_half_url(url)
    if "://" in url or os.path.isabs(url):
        return url
    return join(base, url) if "://" in base else os.path.normpath(os.path.join(base, url))


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec filesystem of a URL, and the path inside it.

    Raises:
        ConfigError: nobody knows its scheme, or it is not complete.
        ServiceError: the package or library for its scheme is not installed, or does not start.
    """
    if is_local(url):
        return fsspec.filesystem("file"), local_path(url)
    scheme = url.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, TypeError, OSError) as error:
        if scheme in DRIVERS or isinstance(error, ImportError):
            raise ServiceError(
                f"{url} is not reachable: {_first_line(error)}; expected {DRIVERS.get(scheme, 'its package')} for "
                f"{scheme}://; install it and see that its settings are there"
            ) from error
        known = ", ".join(f"{name}://" for name in DRIVERS)
        raise ConfigError(
            f"{url} is of no known kind: {_first_line(error)}; expected a path, file://, {known} or another URL that "
            "fsspec knows; check the scheme, or install the package for it"
        ) from error
    return filesystem, path


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def storage_errors(url: str, writes: bool = False) -> Iterator[None]:
    """Turn what filesystems raise into a `StorageError` that names the URL and what to do.

    With ``writes`` a file that is missing is one that was to be made.
    """
    try:
        yield
    except FileNotFoundError as error:
        if writes:
            raise StorageError(
                f"{url} cannot be made: {error.strerror or error}; expected a folder to write in; check the path"
            ) from error
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
