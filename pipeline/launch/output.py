"""RANK and DRIVER. What ranks print: sent over the channel line by line, kept by the driver in one file per rank."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from pipeline import storage
from pipeline.errors import StorageError

_LONGEST_LOG = 1 << 20

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def output_sent(send: Callable[[str], None]) -> Iterator[None]:
    """RANK. Pass on what Python code prints or logs, beside writing it where it went before.

    What C libraries write goes to the executor's own log only.
    """
    before = (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = _Tee(before[0], send), _Tee(before[1], send)
    ours, level = logging.getLogger("pipeline"), logging.getLogger("pipeline").level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        sys.stdout, sys.stderr = before


class _Tee(io.TextIOBase):
    """Writes on, and sends complete lines."""

    def __init__(self, stream: TextIO, send: Callable[[str], None]) -> None:
        self._stream = stream
        self._send = send
        self._line = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        self._stream.write(text)
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
        if lines:
            self._send("\n".join(lines) + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True


class RankLogs:
    """DRIVER. One file per rank in a folder; the newest megabyte of each."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._texts: dict[int, str] = {}
        self._changed: set[int] = set()

    def add(self, rank: int, text: str) -> None:
        """Keep what a rank has printed, until `write`."""
        self._texts[rank] = (self._texts.get(rank, "") + text)[-_LONGEST_LOG:]
        self._changed.add(rank)

    def write(self) -> None:
        """Bring the files up to date; a full disk costs a warning."""
        for rank in self._changed:
            try:
                storage.write_bytes(storage.join(self._folder, f"rank-{rank}.log"), self._texts[rank].encode())
            except StorageError as error:
                logger.warning("%s", error)
        self._changed = set()
