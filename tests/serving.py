"""A server of predictions in this process, and what it answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.config.release import ServingConfig
from pipeline.inference.predictor import Predictor
from pipeline.inference.serve import Server


@contextlib.contextmanager
def serving(predictor: Predictor, **options: Any) -> Iterator[Server]:
    """A server on a free port; options as of the ``serving`` section."""
    server = Server(predictor, ServingConfig(port=0, **options))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.drain()


def ask(
    server: Server,
    method: str = "GET",
    path: str = "/health",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, Any]:
    """Status, JSON body and headers of the answer to one request."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers
    finally:
        connection.close()


def predict(server: Server, rows: Sequence[Mapping[str, Any]]) -> tuple[int, Any, Any]:
    """The answer to rows."""
    return ask(server, "POST", "/predict", json.dumps({"rows": rows}), {"Content-Type": "application/json"})


def predictions_of(predictor: Predictor, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a server of its own says of rows."""
    with serving(predictor) as server:
        status, body, _ = predict(server, rows)
    assert status == 200, body
    return list(body["predictions"])
