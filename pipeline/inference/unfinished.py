"""DRIVER. A table of one writer: beside its target until it is complete, then there as a whole."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from pipeline import storage
from pipeline.errors import OutputError, StorageError
from pipeline.lease import Lease
from pipeline.preparation.jobs import remove_left

_TABLE = "table-"
"""Begins the name of one writer's rows; a dead one may have left some, or even have tasks that still write."""


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
    """Where to write what becomes ``target`` at exit, all of it; after an error, nothing of it is left.

    Raises:
        OutputError: another living writer makes it, or something is there, at the start or at the end.
        InterruptedRunError: another writer has taken over meanwhile.
        StorageError: it cannot be moved there.
    """
    target = target.rstrip("/")
    folder = f"{target}.unfinished"
    table = storage.join(folder, f"{_TABLE}{uuid.uuid4().hex[:12]}")
    try:
        with Lease(folder) as lease:
            refuse_target(target)
            _remove_tables(folder)
            try:
                yield table
                refuse_target(target)
                lease.check()
                storage.move_folder(table, target)
            finally:
                remove_left(table)
    finally:
        with contextlib.suppress(StorageError):  # it hides no other error
            storage.remove_if_empty(folder)


def _remove_tables(folder: str) -> None:
    for name in storage.list_names(folder):
        if name.startswith(_TABLE):
            remove_left(storage.join(folder, name))
