"""ANYWHERE. Predictions over HTTP, with nothing but the standard library, torch and the model folder.

    GET  /health    200 when a warm-up row has been predicted, 503 while draining; says which model it is
    POST /predict   {"rows": [{column: value, ...}]} -> {"predictions": [{"prediction", ...}], "model"}

A prediction is 0 or 1 with ``probability`` (of class 1), a class's name with ``probability`` (its own), or a number;
with several labels ``prediction_<label>`` and ``probability_<label>`` of each.

Limits everywhere: body, rows, requests at a time, time to send a request. There is no authentication, so that the
server listens on the loopback interface unless the configuration says that it may be public.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import select
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.config import load_config
from pipeline.config.load import parse_section
from pipeline.config.release import ServingConfig
from pipeline.errors import PipelineError, SecurityError, ServiceError, UsageError
from pipeline.inference.connection import Connection
from pipeline.inference.predictor import Predictor
from pipeline.inference.resolve import model_folder

logger = logging.getLogger(__name__)

_SPARE_CONNECTIONS = 16
"""Connections beyond ``max_concurrency``, so that health is answered under load."""


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The server; `serve_forever` runs it, `drain` ends it without losing a request.

    Raises:
        ServiceError: the port is in use, or the host is none of this machine.
        SecurityError: the address is public, and the configuration does not allow that.
        PipelineError: the model cannot predict.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, predictor: Predictor, config: ServingConfig) -> None:
        self.predictor = predictor
        self.config = config
        self.model = {"version": predictor.digest[:12], "sha256": predictor.digest, "dataset": predictor.dataset}
        self.draining = False
        self.predicting = threading.BoundedSemaphore(config.max_concurrency)
        self._connections = threading.BoundedSemaphore(config.max_concurrency + _SPARE_CONNECTIONS)
        self._reading: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        refuse_public(config)
        _warm_up(predictor)
        self.address_family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        try:
            super().__init__((config.host, config.port), Connection)
        except socket.gaierror as error:
            raise ServiceError(
                f"serving.host {config.host} is not known: {error.strerror}; expected an address of this machine, "
                "such as 127.0.0.1; check the name"
            ) from error
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise
            raise ServiceError(
                f"serving.port {config.port} of {config.host} is not available: {error.strerror}; "
                "expected a free one; stop the other server or choose another port"
            ) from error

    @property
    def url(self) -> str:
        """Where the server listens."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, or turn it away at once."""
        if not self._connections.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        with self._lock:
            self._reading[request] = time.monotonic() + self.config.request_seconds
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Work on one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.was_read(request)
            self._connections.release()

    def was_read(self, request: socket.socket) -> None:
        """The client has sent all of its request."""
        with self._lock:
            self._reading.pop(request, None)

    def service_actions(self) -> None:
        """Cut off clients that take too long to send their request, however steadily they trickle."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, deadline in self._reading.items() if now > deadline]
        for request in late:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the client's affair."""
        logger.debug("connection broken", exc_info=True)

    def drain(self) -> None:
        """Accept what already waits, then nothing more, and let requests under way finish within the deadline."""
        self.draining = True
        while select.select([self.socket], [], [], 0)[0]:
            self.handle_request()
        self.server_close()
        deadline = time.monotonic() + self.config.drain_seconds
        for _ in range(self.config.max_concurrency + _SPARE_CONNECTIONS):
            if not self._connections.acquire(timeout=max(0.0, deadline - time.monotonic())):
                logger.warning("serve: requests were still under way after %g s", self.config.drain_seconds)
                return


def refuse_public(config: ServingConfig) -> None:
    """Refuse an address that other machines can reach, unless that is wanted.

    Raises:
        SecurityError: nobody said so.
    """
    try:
        loopback = config.host == "localhost" or ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not config.public:
        raise SecurityError(
            f"serving.host is {config.host}, which other machines can reach; expected a loopback address; "
            "the server has no authentication: if something in front of it has, set serving.public or give --public"
        )


def _warm_up(predictor: Predictor) -> None:
    """Predict one row of nulls, so that the first client does not wait, and a broken model never starts."""
    row = pd.DataFrame({name: pd.Series([None], dtype=object) for name in predictor.features.inputs})
    answer = predictor.predict_canonical(predictor.canonical(row))
    if not np.isfinite(answer).all():
        raise PipelineError(f"the model predicts {answer[0]} for a row of nulls; expected a number; train again")


def run(
    model: str,
    host: str | None = None,
    port: int | None = None,
    allow_factories: Sequence[str] = (),
    public: bool = False,
    overrides: Sequence[str] = (),
    target: str | None = None,
) -> dict[str, Any]:
    """Serve until SIGTERM or SIGINT, then finish what is under way; for the main thread of a process of its own.

    Args:
        model: model folder, run folder, or configuration, whose ``serving`` section then counts.
        host: instead of the configured one.
        port: instead of the configured one; 0 takes a free one.
        allow_factories: see `pipeline.inference.predictor.Predictor.load`.
        public: allow an address that other machines can reach.
        overrides: ``section.key=value``, laid over the configuration.
        target: of the configuration.

    Raises:
        ConfigError: the port is none.
        UsageError: there is no configuration to lay anything over.
    """
    config = load_config(model, overrides, target) if model.endswith((".yaml", ".yml")) else None
    if config is None and (overrides or target):
        raise UsageError(f"{model} is no configuration; expected one with --set and --target; leave them out")
    serving = config.serving if config else ServingConfig()
    given = {"host": host, "port": port, "public": public or None}
    given = {name: value for name, value in given.items() if value is not None}
    serving = parse_section(ServingConfig, {**serving.model_dump(), **given}, "serving")
    # One thread per request is enough: more would only compete for the same cores.
    torch.set_num_threads(1)
    server = Server(Predictor.load(model_folder(None if config else model, config), allow_factories), serving)
    with _until_signalled(server):
        logger.info("serve: model %s at %s", server.model["version"], server.url)
        server.serve_forever(poll_interval=0.1)
    server.drain()
    logger.info("serve: drained")
    return {"model": {"url": model, "version": server.model["version"]}, "url": server.url}


@contextlib.contextmanager
def _until_signalled(server: Server) -> Iterator[None]:
    def stop(*_: Any) -> None:
        server.draining = True
        threading.Thread(target=server.shutdown, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
