"""The folder in which built wheels and downloads are kept for all checkouts of one user.

ANYWHERE, standard library only: set-up runs before any package is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "spark-torch-pipeline"


def cache_folder() -> Path:
    """The first of XDG_CACHE_HOME, ~/.cache and the checkout itself that can be written."""
    named, home = os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME")
    for base in (named, home and f"{home}/.cache"):
        if base and os.path.isabs(base) and _is_writable(Path(base) / NAME):
            return Path(base) / NAME
    folder = ROOT / ".cache"
    folder.mkdir(exist_ok=True)
    return folder


def _is_writable(folder: Path) -> bool:
    """By trying: the permission bits say little about root, quotas and read-only mounts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def locked(path: Path, when_busy: str) -> Iterator[int]:
    """Hold an exclusive lock on `path`; prints `when_busy` once if another process has it.

    Yields the descriptor. Children that inherit it keep the lock: orphans of a killed set-up are waited for.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(when_busy, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: two set-ups at once are then the user's affair
        yield descriptor
    finally:
        os.close(descriptor)
