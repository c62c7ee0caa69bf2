"""DRIVER. A table that is being written: beside its target until it is complete, and not for ever if it never is."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import uuid
from collections.abc import Iterator

from pipeline import storage
from pipeline.errors import OutputError, StorageError
from pipeline.lease import Lease
from pipeline.preparation.jobs import remove_left

_NAME = r"{}\.[0-9a-f]{{12}}\.unfinished"


def refuse_target(target: str) -> None:
    """Make sure that a new folder can come to be.

    Raises:
        OutputError: something is there.
        StorageError: a file stands where a folder is needed, or writing is not permitted.
    """
    if storage.exists(target):
        raise OutputError(f"{target} exists; expected a new folder; choose another or remove it")
    if not storage.is_local(target):
        return
    above = os.path.dirname(storage.local_path(target))
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise StorageError(f"{target} cannot be made: {above} is a file; expected a folder; choose another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StorageError(
            f"{target} cannot be made: {above} is not writable; expected write permission; choose another folder or "
            "change its permissions"
        )


@contextlib.contextmanager
def unfinished_folder(target: str) -> Iterator[str]:
    """Where to write what is to become ``target``, removed at exit; what dead writers of it left goes first."""
    target = target.rstrip("/")
    _sweep(posixpath.dirname(target) or ".", posixpath.basename(target))
    folder = f"{target}.{uuid.uuid4().hex[:12]}.unfinished"
    try:
        with Lease(folder):
            yield storage.join(folder, "table")
    finally:
        remove_left(folder)


def _sweep(parent: str, target: str) -> None:
    pattern = re.compile(_NAME.format(re.escape(target)))
    for name in filter(pattern.fullmatch, storage.list_names(parent)):
        folder = storage.join(parent, name)
        with contextlib.suppress(OutputError):  # its writer lives
            with Lease(folder):
                pass
            remove_left(folder)
