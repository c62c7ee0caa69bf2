"""ANYWHERE. One connection to the server: a request, read within its limits, and the answer to it in JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.errors import DataError
from pipeline.inference.request import Refusal, parse_rows

if TYPE_CHECKING:
    from pipeline.inference.serve import Server

logger = logging.getLogger(__name__)


class Connection(BaseHTTPRequestHandler):
    """One request per connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "pipeline", ""

    def setup(self) -> None:
        """No single read waits longer than the whole request may."""
        super().setup()
        self.connection.settimeout(self.server.config.request_seconds)

    def do_GET(self) -> None:
        """Health."""
        if self.path != "/health":
            self._refuse_path({"/predict": "POST"})
            return
        ready = not self.server.draining
        body = {"status": "ready" if ready else "draining", "live": True, "ready": ready, "model": self.server.model}
        self._answer(200 if ready else 503, body)

    def do_POST(self) -> None:
        """Predict."""
        if self.path != "/predict":
            self._refuse_path({"/health": "GET"})
            return
        try:
            rows = self._read_rows()
            self._answer(200, {"predictions": self._predict(rows), "model": self.server.model["version"]})
        except Refusal as refusal:
            self._answer(refusal.status, refusal.body)
        except (OSError, EOFError):
            self.close_connection = True
        except Exception:
            number = uuid.uuid4().hex[:12]
            logger.exception("serve: request failed, error id %s", number)
            self._answer(500, {"error": "internal error", "id": number})

    def _read_rows(self) -> pd.DataFrame:
        length = self.headers.get("Content-Length", "")
        limit = self.server.config.max_body_bytes
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise Refusal(411, "the request has no Content-Length; expected the body's size in bytes")
        if int(length[:20]) > limit:
            raise Refusal(413, f"the body is {length[:20]} bytes; expected at most {limit}; send several requests")
        if self.headers.get_content_type() not in ("application/json", "text/plain"):
            raise Refusal(415, f"the body is {self.headers.get_content_type()}; expected application/json")
        with contextlib.suppress(TimeoutError):
            body = self.rfile.read(int(length))
            self.server.was_read(self.connection)
            if len(body) == int(length):
                return parse_rows(body, self.server.predictor.features.inputs, self.server.config.max_rows)
        raise Refusal(408, f"the body did not arrive; expected it within {self.server.config.request_seconds:g} s")

    def _predict(self, rows: pd.DataFrame) -> list[dict[str, Any]]:
        with self._slot():
            try:
                answers = self.server.predictor.predict(rows).to_dict("list")
            except DataError as error:
                problems = [{"problem": offence} for offence in error.offences]
                raise Refusal(422, "rows have wrong values", problems) from error
        return [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        if not self.server.predicting.acquire(blocking=False):
            raise Refusal(503, "the server is busy; expected fewer requests at a time; try again in a second")
        try:
            yield
        finally:
            self.server.predicting.release()

    def _refuse_path(self, other: dict[str, str]) -> None:
        if self.path in other:
            self._answer(405, {"error": f"{self.path} takes {other[self.path]}"}, {"Allow": other[self.path]})
        else:
            self._answer(404, {"error": "no such path; expected GET /health or POST /predict"})

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        more = {"Retry-After": "1"} if status == 503 else {}
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"}
        safe = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        version = {"X-Model-Version": self.server.model["version"]}
        for name, value in {**fixed, **safe, **version, **more, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library finds wrong with a request, in JSON like all the rest."""
        self.requestline, self.request_version = getattr(self, "requestline", ""), "HTTP/1.1"
        self.command = getattr(self, "command", None) or "GET"
        with contextlib.suppress(OSError):
            self._answer(int(code), {"error": self.responses.get(code, ("not understood", ""))[0]})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests to the log, control characters escaped."""
        logger.debug("%s", ascii(format % arguments))
