"""RANK. The rank's end of the channel: reporting costs training nothing and never fails it."""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import LostPeersError, PipelineError, ServiceError
from pipeline.launch.channel import LINE_BYTES, ChannelAddress, answer

HEARTBEAT_SECONDS = 1.0
_PROGRESS_SECONDS = 0.2
_QUEUE_LENGTH = 10_000
_CONNECT_SECONDS = 20.0
_ROOM_SECONDS = 5.0
"""How long a message that must not be dropped waits for room in the queue, and the end of all for the last ones."""
_LONGEST_TEXTS = (200_000, 50_000, 10_000, 1_000)
_PLACES = 4

logger = logging.getLogger(__name__)


class ChannelReporter:
    """Implements `pipeline.task.Reporter` over the channel, as a context manager.

    A thread of its own sends, and heartbeats in between. Progress is thinned to a few messages per second;
    what does not fit in the queue is dropped, but for how the rank ends. A broken connection is made again, quietly.

    Raises:
        ServiceError: on entry, when the driver cannot be reached.
    """

    def __init__(self, address: ChannelAddress, rank: int) -> None:
        self._address = address
        self._rank = rank
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUE_LENGTH)
        self._latest: dict[str, Any] | None = None
        self._step: int | None = None
        self._failed = False
        self._watched = threading.get_ident()
        self._stop = threading.Event()
        self._abandoned = threading.Event()
        self._connection: socket.socket | None = None
        self._sender = threading.Thread(target=self._send_all, name="reporter", daemon=True)

    def __enter__(self) -> ChannelReporter:
        try:
            self._connect()
        except (OSError, ValueError) as error:
            raise ServiceError(
                f"rank {self._rank} on {socket.gethostname()} cannot reach the driver at "
                f"{self._address.host}:{self._address.port}: {error}; expected an open way from executors to the "
                "driver; set spark.driver.host to an address that they reach, and check the firewall"
            ) from error
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._put({"kind": "bye"}, _ROOM_SECONDS)
        self._put(None, _ROOM_SECONDS)
        self._sender.join(_ROOM_SECONDS)
        self._abandoned.set()
        if self._connection is not None:
            self._connection.close()

    @property
    def stopped(self) -> bool:
        """Whether the driver has asked all ranks to stop."""
        return self._stop.is_set()

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        self._step = step
        self._latest = {
            "kind": "progress",
            "epoch": epoch,
            "step": step,
            "steps": steps,
            "loss": loss,
            "rows_per_second": rows_per_second,
        }

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._put({"kind": "metrics", "values": dict(values), "step": step})

    def resumed(self, step: int) -> None:
        self._put({"kind": "resumed", "step": step})

    def event(self, message: str) -> None:
        self._put({"kind": "event", "message": message})

    def timings(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        self._put({"kind": "timings", "ranks": [dict(rank) for rank in ranks]})

    def log(self, text: str) -> None:
        """Lines that this rank has written to stdout or stderr."""
        self._put({"kind": "log", "text": text})

    def started(self) -> None:
        """The ranks have found each other; training begins."""
        self._put({"kind": "started"})

    def failure(self, error: BaseException) -> None:
        """The last that this rank reports: why it ends. What fails after that is a consequence."""
        if not self._failed:
            self._failed = True
            self._put({"kind": "failure", **describe(error), "step": self._step}, _ROOM_SECONDS)

    def _put(self, message: dict[str, Any] | None, seconds: float = 0.0) -> None:
        try:
            self._queue.put(message, block=seconds > 0, timeout=seconds)
        except queue.Full:
            logger.debug("the report queue is full; dropped %s", message)

    def _send_all(self) -> None:
        sent = time.monotonic()
        while not self._abandoned.is_set():
            try:
                message = self._queue.get(timeout=_PROGRESS_SECONDS)
            except queue.Empty:
                message = self._take_progress()
                if message is None and time.monotonic() - sent < HEARTBEAT_SECONDS:
                    continue
                message = message or {"kind": "heartbeat", "where": _where(self._watched)}
            else:
                if message is None:
                    return
                if (progress := self._take_progress()) is not None:
                    self._send(progress)
            self._send(message)
            sent = time.monotonic()

    def _take_progress(self) -> dict[str, Any] | None:
        latest, self._latest = self._latest, None
        return latest

    def _send(self, message: dict[str, Any]) -> None:
        """Send, if need be over a new connection; give up on the message after one new try."""
        line = line_of(message)
        if line is None:
            logger.debug("too much at once for the driver; dropped a message of kind %s", message["kind"])
            return
        for _ in range(2):
            try:
                if self._connection is None:
                    self._connect()
                assert self._connection is not None
                self._connection.sendall(line)
                return
            except (OSError, ValueError):
                self._connection = None
                if self._abandoned.is_set():
                    return

    def _connect(self) -> None:
        connection = socket.create_connection((self._address.host, self._address.port), timeout=_CONNECT_SECONDS)
        stream = connection.makefile("rb")
        challenge = json.loads(stream.readline(LINE_BYTES) or b"{}").get("challenge", "")
        hello = {
            "rank": self._rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "answer": answer(self._address.token, challenge, self._rank),
        }
        connection.sendall(json.dumps(hello).encode() + b"\n")
        if not json.loads(stream.readline(LINE_BYTES) or b"{}").get("accepted"):
            connection.close()
            raise ValueError("it did not accept this rank")
        connection.settimeout(None)
        self._connection = connection
        threading.Thread(target=self._listen, args=(stream,), name="reporter-listen", daemon=True).start()

    def _listen(self, stream: Any) -> None:
        try:
            for line in stream:
                if json.loads(line).get("stop"):
                    self._stop.set()
        except (OSError, ValueError):
            return


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain values.

    ``secondary`` marks what only follows from another rank's end: a failed collective.
    """
    return {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "code": error.code if isinstance(error, PipelineError) else None,
        "offences": list(error.offences) if isinstance(error, PipelineError) else [],
        "detail": error.detail if isinstance(error, PipelineError) else None,
        "secondary": isinstance(error, LostPeersError) or _is_of_horovod(error),
    }


def _is_of_horovod(error: BaseException) -> bool:
    """Whether Horovod says that an operation failed, which a user's own call of it meets when another rank is gone."""
    return type(error).__module__.startswith("horovod.") and "not been initialized" not in str(error)


def line_of(message: Mapping[str, Any]) -> bytes | None:
    """A message as a line that the driver takes: texts for which there is no room lose their middle.

    None if it would be too long even so.
    """
    for longest in _LONGEST_TEXTS:
        line = json.dumps(_shortened(message, longest), ensure_ascii=False).encode(errors="replace") + b"\n"
        if len(line) <= LINE_BYTES:
            return line
    return None


def _shortened(value: Any, longest: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _shortened(inner, longest) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner, longest) for inner in value]
    if isinstance(value, str) and len(value) > longest:
        return f"{value[: longest // 2]} [...] {value[len(value) - longest // 2 :]}"
    return value


def _where(thread: int) -> str:
    """Where that thread is: module, line and function, innermost first, so that a hung rank can be explained."""
    places: list[str] = []
    frame = sys._current_frames().get(thread)
    while frame is not None and len(places) < _PLACES:
        places.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(places)
