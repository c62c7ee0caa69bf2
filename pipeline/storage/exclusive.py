"""ANYWHERE. Whether a store creates a file for one of two writers alone; where it does not, that is said, once.

Leases and commits rest on it. On a local disk a hard link does it, on object stores a condition of the request, which
not every driver sends and not every store obeys.
"""

from __future__ import annotations

import logging
import uuid

import fsspec

from pipeline.storage.files import remove
from pipeline.storage.urls import filesystem, is_local, join, storage_errors

logger = logging.getLogger(__name__)

_looked_at: set[str] = set()


def warn_unless_exclusive(folder: str) -> None:
    """Warn, once for a store and process, that two who create the same file there at once may both succeed."""
    store = "/".join(folder.split("/")[:3])
    if is_local(folder) or store in _looked_at:
        return
    if not creates_exclusively(folder):
        logger.warning(
            "%s does not create files exclusively: two runs that begin in the same moment may both take themselves "
            "for the only writer; have one at a time write to %s",
            store,
            folder,
        )
    _looked_at.add(store)


def creates_exclusively(folder: str) -> bool:
    """Whether the driver of a remote store asks for exclusive creation, and a second creation of a file fails.

    Raises:
        StorageError: the folder cannot be written.
    """
    probe = join(folder, f"_probe-{uuid.uuid4().hex}")
    filesystem_, path = filesystem(probe)
    has_own = filesystem_.async_impl or type(filesystem_).pipe_file is not fsspec.AbstractFileSystem.pipe_file
    if not has_own:  # fsspec's common one looks whether the file is there, and then writes it
        return False
    with storage_errors(probe):
        try:
            filesystem_.pipe_file(path, b"1", mode="create")
            filesystem_.pipe_file(path, b"2", mode="create")
        except FileExistsError:
            return True
        finally:
            remove(probe)
    return False
