"""DRIVER. A temporary folder that disappears with its owner, even if the owner is killed.

Its owners hold a lock file for as long as they live, and the operating system drops the lock of a dead
process. So whoever comes next can tell a dead owner's folder from a living one's, without process ids.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.launch.environment import interrupts_held_back

_LOCK = "owner.lock"


@contextlib.contextmanager
def temporary_folder(workspace: str) -> Iterator[Path]:
    """A new folder in ``<workspace>/.tmp``, removed at exit; folders of dead owners are removed first.

    A workspace that is not on this machine's disks gets its folder in the system's temporary folder.

    Raises:
        StorageError: the workspace cannot be written.
    """
    base = _base(workspace)
    folder = base / uuid.uuid4().hex[:12]
    try:
        with contextlib.ExitStack() as owner:
            try:
                with _locked(base / "sweep.lock"):
                    dead = [other for other in base.iterdir() if other.is_dir() and not _has_owner(other)]
                    folder.mkdir(mode=0o700)
                    owner.enter_context(joint_owner(folder))
                for other in dead:
                    shutil.rmtree(other, ignore_errors=True)
            except OSError as error:
                raise StorageError(
                    f"{base} cannot be used: {error.strerror or error}; expected a folder to write temporary files "
                    "in; choose another workspace"
                ) from error
            yield folder
    finally:
        _remove(base, folder)


@contextlib.contextmanager
def joint_owner(folder: Path) -> Iterator[int]:
    """Own a folder beside those who own it already; the file descriptor, with which a child process owns it too."""
    with (folder / _LOCK).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield stream.fileno()


def _base(workspace: str) -> Path:
    if storage.is_local(workspace):
        return Path(storage.local_path(workspace), ".tmp")
    return Path(tempfile.gettempdir(), f"pipeline-{os.getuid()}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Interrupts wait meanwhile: one that left the lock held would let the removal that it leads to wait for ever."""
    with interrupts_held_back():
        while (stream := _lock(path)) is None:
            pass
        with stream:
            yield


def _lock(path: Path) -> TextIO | None:
    """The lock file, made and locked; None if another process has removed it or its folder meanwhile."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(path.open("w"))
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return None
        except FileNotFoundError:
            return None
        stack.pop_all()
        return stream


def _has_owner(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _remove(base: Path, folder: Path) -> None:
    """Remove the folder, and its parent if nobody else uses it."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError), _locked(base / "sweep.lock"):
        if [path.name for path in base.iterdir()] == ["sweep.lock"]:
            (base / "sweep.lock").unlink()
            base.rmdir()
