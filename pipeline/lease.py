"""DRIVER. One writer per folder: a lease that its holder renews, and that others take over when it stands still.

Clocks of different hosts are never compared: a lease is dead when its counter has not moved for
`STALE_SECONDS` of the observer's own monotonic clock, or at once when its holder was a process of this host
that is gone.
"""

from __future__ import annotations

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
_FORMAT = ("lease", 1)

logger = logging.getLogger(__name__)


class Lease:
    """Hold ``<folder>/lease.json`` as a context manager.

    Raises:
        OutputError: another living writer holds it (73).
    """

    def __init__(self, folder: str, stale_seconds: float = STALE_SECONDS, renew_seconds: float = RENEW_SECONDS) -> None:
        self._url = storage.join(folder, "lease.json")
        self._stale_seconds = stale_seconds
        self._renew_seconds = renew_seconds
        self._me = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
        }
        self._counter = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._lost = False

    def __enter__(self) -> Lease:
        while not storage.put_if_absent(self._url, self._content()):
            self._take_over()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_mine():
            storage.remove(self._url)

    def check(self) -> None:
        """Fence: raise if somebody else has taken the lease over, before anything is published."""
        if self._lost or not self._is_mine():
            raise InterruptedRunError(
                f"{self._url} was taken over by another run; expected to be the only writer; run the command again"
            )

    def _content(self) -> bytes:
        return storage.format_json(*_FORMAT, {**self._me, "counter": self._counter})

    def _read(self) -> dict[str, Any] | None:
        try:
            return storage.read_json(self._url, *_FORMAT)
        except StorageError:
            return None

    def _is_mine(self) -> bool:
        return (self._read() or {}).get("owner") == self._me["owner"]

    def _take_over(self) -> None:
        seen = self._read()
        if seen is None or _is_dead_here(seen):
            logger.info("taking over the lease %s of a writer that is gone", self._url)
            storage.remove(self._url)
            return
        if seen["host"] == self._me["host"] and seen["boot"] == self._me["boot"]:
            self._refuse(seen)
        deadline = time.monotonic() + self._stale_seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._stale_seconds / 10))
            if self._read() != seen:
                self._refuse(seen)
        storage.remove(self._url)

    def _refuse(self, seen: dict[str, Any]) -> None:
        raise OutputError(
            f"{self._url} is held by process {seen['pid']} on {seen['host']}; expected no other writer; "
            "wait for it or stop it"
        )

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_seconds):
            if not self._is_mine():
                self._lost = True
                return
            self._counter += 1
            try:
                storage.write_bytes(self._url, self._content())
            except StorageError as error:
                logger.warning("the lease could not be renewed: %s", error)


def _is_dead_here(seen: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very host and boot that does not live any more."""
    if seen["host"] != socket.gethostname() or seen["boot"] != _boot_id():
        return False
    return bool(_started(seen["pid"]) != seen["started"])


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
