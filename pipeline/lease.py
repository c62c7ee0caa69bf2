"""DRIVER. One writer per folder: a lease that its holder renews, and that others take over when it stands still.

Clocks of different hosts are never compared: a lease is dead when its counter has not moved for
`STALE_SECONDS` of the observer's own monotonic clock, or at once when its holder was a process that this one would
see, and is gone. Two containers may have one host name and kernel, and not see each other's processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

from pipeline import storage
from pipeline.errors import InterruptedRunError, OutputError, StorageError

STALE_SECONDS = 60.0
RENEW_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = (0.1, 0.3, 0.6)
_FORMAT = ("lease", 1)

logger = logging.getLogger(__name__)


class Lease:
    """Hold ``<folder>/lease.json`` as a context manager.

    Raises:
        OutputError: another living writer holds it (73).
    """

    def __init__(self, folder: str, stale_seconds: float = STALE_SECONDS, renew_seconds: float = RENEW_SECONDS) -> None:
        self._folder = folder
        self._url = storage.join(folder, "lease.json")
        self._stale_seconds = stale_seconds
        self._renew_seconds = renew_seconds
        self._me = {"owner": uuid.uuid4().hex, **_this_process()}
        self._counter = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._lost = False

    def __enter__(self) -> Lease:
        storage.warn_unless_exclusive(self._folder)
        while not storage.put_if_absent(self._url, self._content()):
            self._take_over()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if threading.current_thread() is not self._thread:  # in which a finalizer may happen to run
            self._thread.join()
        try:
            if self._is_mine():
                storage.remove(self._url)
        except StorageError as error:
            logger.warning("the lease stays until it is found dead: %s", error)

    def check(self) -> None:
        """Fence: raise if somebody else has taken the lease over, before anything is published.

        Raises:
            InterruptedRunError: so it is.
            StorageError: the lease cannot be read.
        """
        if self._lost or not self._is_mine():
            raise InterruptedRunError(
                f"{self._url} was taken over by another run; expected to be the only writer; run the command again"
            )

    def _content(self) -> bytes:
        return storage.format_json(*_FORMAT, {**self._me, "counter": self._counter})

    def _there(self) -> bytes | None:
        """What stands in the file; None if it is missing, which is something else than unreadable."""
        try:
            return storage.read_bytes(self._url)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _is_mine(self) -> bool:
        """Whether this is the holder; a file that is missing or unreadable is looked at again.

        Somebody who found another one's lease dead may have this one in hand for a moment (`_take_away`).
        """
        for pause in _LOOK_AGAIN_SECONDS:
            with contextlib.suppress(StorageError):
                if owner := self._owner():
                    return bool(owner == self._me["owner"])
            time.sleep(pause)
        return bool(self._owner() == self._me["owner"])

    def _owner(self) -> str | None:
        there = self._there()
        return None if there is None else _holder(self._url, there).get("owner")

    def _take_over(self) -> None:
        """Clear the way if the holder is gone.

        Raises:
            OutputError: it lives.
        """
        seen = self._there()
        if seen is None:
            return
        holder = _holder(self._url, seen)
        if _is_dead_here(holder):
            self._take_away(seen)
            return
        if _would_be_seen(holder):
            self._refuse(holder)
        deadline = time.monotonic() + self._stale_seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._stale_seconds / 10))
            with contextlib.suppress(StorageError):  # a moment in which it cannot be read says nothing
                if (now := self._there()) is None:
                    return
                if now != seen:
                    self._refuse(_holder(self._url, now))
        self._take_away(seen)

    def _take_away(self, seen: bytes) -> None:
        """Remove the lease that was seen: of several who found it dead one gets it, by a rename.

        Whoever comes late gets the next holder's lease in hand, and puts it back.
        """
        mine = f"{self._url}.{self._me['owner']}"
        try:
            storage.move_folder(self._url, mine)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return
            raise
        if (taken := storage.read_bytes(mine)) == seen:
            logger.info("taking over the lease %s of a writer that is gone", self._url)
        else:
            storage.put_if_absent(self._url, taken)
        storage.remove(mine)

    def _refuse(self, holder: dict[str, Any]) -> None:
        raise OutputError(
            f"{self._url} is held by process {holder.get('pid')} on {holder.get('host')}; expected no other writer; "
            "wait for it or stop it"
        )

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_seconds):
            try:
                if not self._is_mine():
                    self._lost = True
                    return
                self._counter += 1
                storage.write_bytes(self._url, self._content())
            except StorageError as error:
                logger.warning("the lease could not be renewed: %s", error)


def held_by_another(folder: str) -> bool:
    """Whether a lease of another process is there that may live; nobody waits to see whether it moves."""
    url = storage.join(folder, "lease.json")
    if not storage.exists(url):
        return False
    holder = _holder(url, storage.read_bytes(url))
    is_ours = _this_process().items() <= holder.items()
    return not is_ours and not _is_dead_here(holder)


def _holder(url: str, content: bytes) -> dict[str, Any]:
    """Who wrote a lease; empty if that cannot be told."""
    try:
        return storage.parse_json(url, content, *_FORMAT)
    except StorageError:
        return {}


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process that this one would see, and that does not live any more."""
    return _would_be_seen(holder) and bool(_started(holder["pid"]) != holder["started"])


def _would_be_seen(holder: dict[str, Any]) -> bool:
    """Whether this process sees the holder while it lives: of a lease that does not say where, nobody knows."""
    here = _where_pids_count()
    return all(here.values()) and here.items() <= holder.items()


def _this_process() -> dict[str, Any]:
    return {**_where_pids_count(), "pid": os.getpid(), "started": _started(os.getpid())}


def _where_pids_count() -> dict[str, str]:
    """Within what a pid names one process; empty values are unknown."""
    return {"host": socket.gethostname(), "boot": _boot_id(), "pid_namespace": _pid_namespace()}


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """The start time of a process in clock ticks since boot, so that a reused pid is not taken for the old one."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""
