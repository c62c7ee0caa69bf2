"""DRIVER. Receives what ranks report: one authenticated TCP stream of JSON lines per rank.

A rank proves that it knows the token by answering a challenge, so the token itself never crosses the wire
here. Nothing that comes in is unpickled or run.

    driver -> rank   {"challenge": ...}          then {"accepted": true}, later perhaps {"stop": true}
    rank -> driver   {"rank", "host", "pid", "answer"}, then one message per line
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import queue
import secrets
import socket
import socketserver
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pipeline.launch.listening import listening_on

LINE_BYTES = 1 << 20
_AUTHENTICATION_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """What a rank said.

    Attributes:
        kind: hello, started, heartbeat, progress, metrics, timings, resumed, event, log, failure, bye; or lost, when
            the stream ended without a bye.
    """

    rank: int
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelAddress:
    """Where ranks report, and what proves that they may."""

    host: str
    port: int
    token: str = field(repr=False)


def answer(token: str, challenge: str, rank: int) -> str:
    """The proof of knowing the token."""
    return hmac.new(token.encode(), f"{challenge}:{rank}".encode(), "sha256").hexdigest()


class ChannelServer:
    """Listens while the context is open; `messages` holds what came in, in order of arrival.

    Args:
        bind: address of this machine to listen on.
        advertised: name or address by which ranks reach it.

    Raises:
        ServiceError: the address is not one of this machine.
    """

    def __init__(self, bind: str, advertised: str) -> None:
        token = secrets.token_hex(32)
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        with listening_on(bind):
            self._server = _Server((bind, 0), token, self.messages)
        self.address = ChannelAddress(advertised, self._server.server_address[1], token)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="channel", daemon=True)

    def __enter__(self) -> ChannelServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.disconnect()
        self._thread.join()

    def ask_to_stop(self) -> None:
        """Ask all ranks to save their state and end."""
        self._server.send({"stop": True})


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, bind: tuple[str, int], token: str, messages: queue.SimpleQueue[Message]) -> None:
        super().__init__(bind, _Connection)
        self.token = token
        self.messages = messages
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()

    def connected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def gone(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def send(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.sendall(json.dumps(message).encode() + b"\n")

    def disconnect(self) -> None:
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a connection from %s broke", client_address, exc_info=True)


class _Connection(socketserver.StreamRequestHandler):
    server: _Server
    timeout = _AUTHENTICATION_SECONDS

    def handle(self) -> None:
        hello = self._authenticated()
        if hello is None:
            return
        if not hello:
            logger.warning("refused a connection from %s that could not prove to be a rank", self.client_address[0])
            return
        self.connection.settimeout(None)
        rank = int(hello["rank"])
        self.server.connected(self.connection)
        last = ""
        try:
            self._say({"accepted": True})
            self.server.messages.put(Message(rank, "hello", hello))
            while (body := self._line()) is not None:
                last = str(body.pop("kind"))
                self.server.messages.put(Message(rank, last, body))
        finally:
            self.server.gone(self.connection)
            if last != "bye":
                self.server.messages.put(Message(rank, "lost"))

    def _authenticated(self) -> dict[str, Any] | None:
        """The hello of a rank; empty when it could not prove to be one, None when it said nothing (a probe)."""
        challenge = secrets.token_hex(16)
        self._say({"challenge": challenge})
        hello = self._line()
        if hello is None:
            return None
        expected = answer(self.server.token, challenge, int(hello.get("rank", -1)))
        return hello if hmac.compare_digest(expected, str(hello.pop("answer", ""))) else {}

    def _say(self, message: Mapping[str, Any]) -> None:
        self.wfile.write(json.dumps(message).encode() + b"\n")

    def _line(self) -> dict[str, Any] | None:
        """The next message; None at the end of the stream, or when it is not what a rank would say."""
        try:
            line = self.rfile.readline(LINE_BYTES)
            value = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None
