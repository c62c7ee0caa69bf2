"""RANK and DRIVER. What ranks print: sent over the channel line by line, kept by the driver in one file per rank."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from pipeline import storage
from pipeline.errors import StorageError

_LONGEST_LOG = 1 << 20
_LONGEST_PART = 10_000  # of a line, to wait for its end
_OVERWRITTEN_SECONDS = 2.0
_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")

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
    handler.setFormatter(_FORMAT)
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def output_kept(keep: Callable[[str], None]) -> Iterator[None]:
    """DRIVER. Keep what a rank in this process prints or logs, which is seen already where it goes."""
    before = (sys.stdout, sys.stderr)
    handler = logging.StreamHandler(_Lines(keep))
    handler.setFormatter(_FORMAT)
    ours = logging.getLogger("pipeline")
    ours.addHandler(handler)
    sys.stdout, sys.stderr = _Tee(before[0], keep), _Tee(before[1], keep)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        ours.removeHandler(handler)


@contextlib.contextmanager
def petastorm_quiet() -> Iterator[None]:
    """DRIVER. Of each file it opens Petastorm says at INFO what is so on purpose; a level that its logger has wins."""
    theirs = logging.getLogger("petastorm")
    level = theirs.level
    theirs.setLevel(level or logging.WARNING)
    try:
        yield
    finally:
        theirs.setLevel(level)


class _Lines(io.TextIOBase):
    """Sends complete lines, as a terminal would show them at their end.

    Of a line that is written over again and again, such as a progress bar, it also sends how it is, now and then.
    """

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._line = ""
        self._shown = time.monotonic()
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, rest = (self._line + text).split("\n")
            shown = "".join(f"{_standing(line)}\n" for line in lines)
            self._line = _standing(rest) + "\r" * rest.endswith("\r")
            if len(self._line) > _LONGEST_PART:
                shown, self._line = shown + self._line, ""
            elif "\r" in rest and time.monotonic() - self._shown >= _OVERWRITTEN_SECONDS:
                shown += f"{_standing(rest)}\n"
            if shown:
                self._shown = time.monotonic()
        if shown:
            self._send(shown)
        return len(text)

    def writable(self) -> bool:
        return True


def _standing(line: str) -> str:
    """What is not written over: behind the last carriage return that something follows."""
    return line.rstrip("\r").rpartition("\r")[2]


class _Tee(_Lines):
    """Writes on, and sends complete lines."""

    def __init__(self, stream: TextIO, send: Callable[[str], None]) -> None:
        super().__init__(send)
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


class RankLogs:
    """DRIVER. One file per rank in a folder, of all commands that worked on the run; the newest megabyte of each."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._texts: dict[int, str] = {}
        self._changed: set[int] = set()

    def add(self, rank: int, text: str) -> None:
        """Keep what a rank has printed, until `write`."""
        if rank not in self._texts:
            self._texts[rank] = self._earlier(rank)
        self._texts[rank] = (self._texts[rank] + text)[-_LONGEST_LOG:]
        self._changed.add(rank)

    def write(self) -> None:
        """Bring the files up to date; a full disk costs a warning."""
        for rank in self._changed:
            try:
                storage.write_bytes(self._url(rank), self._texts[rank].encode(errors="replace"))
            except StorageError as error:
                logger.warning("%s", error)
        self._changed = set()

    def _earlier(self, rank: int) -> str:
        """What the command before, which this one resumes, has kept; then a line that says where this one begins."""
        try:
            text = storage.read_bytes(self._url(rank)).decode(errors="replace")
        except StorageError:
            return ""
        return f"{text}--- {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC: the next command\n" if text else ""

    def _url(self, rank: int) -> str:
        return storage.join(self._folder, f"rank-{rank}.log")
