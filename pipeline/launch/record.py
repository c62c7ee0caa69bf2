"""DRIVER. A training as the driver sees it: in ``status.json``, in ``metrics.jsonl``, and by whoever wants to listen.

What ranks report passes through here on its way to MLflow and to the screen. Nothing here may hurt training:
a listener that raises or a disk that is full costs a warning.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.launch.output import RankLogs
from pipeline.run_folder import LOGS, METRICS
from pipeline.status_file import StatusFile
from pipeline.task import Reporter

METRICS_FORMAT = "metrics/1"
State = Literal["starting", "running", "finished", "failed", "interrupted"]

logger = logging.getLogger(__name__)


class RunRecord:
    """Implements `pipeline.task.Reporter` on the driver.

    ``metrics.jsonl`` holds one line per report, each with ``step``; it is cut back when training resumes from
    an earlier step, so that it reads as if nothing had happened.

    Args:
        run_url: the run folder.
        listeners: other reporters that are told the same.
        status: of the command that trains; by default one of its own.
    """

    def __init__(self, run_url: str, listeners: Sequence[Reporter] = (), status: StatusFile | None = None) -> None:
        self._status = status or StatusFile(run_url)
        self._metrics_url = storage.join(run_url, METRICS)
        self._listeners = listeners
        self._metrics = _read_lines(self._metrics_url)
        self._ranks: list[dict[str, Any]] = []
        self._timings: dict[int, Mapping[str, Any]] = {}
        self._logs = RankLogs(storage.join(run_url, LOGS))
        self._rate = _Rate()
        self._begun = False

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        self._begin_at(step)
        values: dict[str, Any] = {
            "epoch": epoch,
            "step": step,
            "steps": steps,
            "loss": loss,
            "rows_per_second": rows_per_second,
        }
        self._note(**values, remaining_seconds=self._rate.remaining(step, steps))
        self._tell(lambda listener: listener.progress(**values))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._begin_at(step)
        self._metrics.append({"format": METRICS_FORMAT, "step": step, **storage.finite_json(values)})
        self._write_metrics()
        self._note(step=step, metrics=dict(values))
        self._tell(lambda listener: listener.metrics(values, step))

    def resumed(self, step: int) -> None:
        self._begun = True
        kept = [line for line in self._metrics if line["step"] <= step]
        if len(kept) < len(self._metrics):
            self._metrics = kept
            self._write_metrics()
        self._rate = _Rate()
        self._tell(lambda listener: listener.resumed(step))

    def event(self, message: str) -> None:
        logger.info("%s", message)
        self._note(last_event=message)
        self._tell(lambda listener: listener.event(message))

    def timings(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        self._timings = {rank["rank"]: rank for rank in ranks}
        self._note_ranks()
        self._tell(lambda listener: listener.timings(ranks))

    def log(self, rank: int, text: str) -> None:
        """What a rank has printed, for ``logs/rank-<n>.log``; rank 0's is shown too."""
        self.keep(rank, text)
        if rank == 0:
            logger.info("rank 0: %s", text.rstrip("\n"))

    def keep(self, rank: int, text: str) -> None:
        """What a rank has printed, if it is seen already."""
        self._logs.add(rank, text)

    def ranks(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        """The ranks' last signs of life, ``seconds_silent`` ago, for `pipeline status`."""
        self._ranks = [dict(rank) for rank in ranks]
        for rank in self._ranks:
            rank["seen"] = time.time() - rank.pop("seconds_silent")  # which stays true when the file is written again
        self._note_ranks()

    def state(self, state: State, **more: Any) -> None:
        """Training enters a state; written at once."""
        self._begun = self._begun and state != "running"
        self._note(at_once=True, state=state, **more)

    def close(self) -> None:
        """Bring the logs of ranks up to date."""
        self._logs.write()

    def _begin_at(self, step: int) -> None:
        """An attempt that resumes nothing voids what an earlier one reported, from its first step on."""
        if not self._begun and any(line["step"] >= step for line in self._metrics):
            self.resumed(step - 1)
        self._begun = True

    def _note_ranks(self) -> None:
        self._note(ranks=[{**rank, **self._timings.get(rank["rank"], {})} for rank in self._ranks])

    def _note(self, at_once: bool = False, **values: Any) -> None:
        if self._status.update(at_once, **values):
            self._logs.write()

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(line) + "\n" for line in self._metrics)
        try:
            storage.write_bytes(self._metrics_url, lines.encode())
        except StorageError as error:
            logger.warning("%s", error)

    def _tell(self, tell: Callable[[Reporter], None]) -> None:
        for listener in self._listeners:
            try:
                tell(listener)
            except Exception as error:
                logger.warning("a listener of the run failed: %s", error, exc_info=logger.isEnabledFor(logging.DEBUG))


class _Rate:
    """Steps per second since the first report, for the remaining time."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def remaining(self, step: int, steps: int) -> float | None:
        now = time.monotonic()
        self._first = self._first or (now, step)
        done, seconds = step - self._first[1], now - self._first[0]
        return round(seconds / done * (steps - step), 1) if done > 0 else None


def _read_lines(url: str) -> list[dict[str, Any]]:
    """The lines of an earlier attempt of this run."""
    if not storage.exists(url):
        return []
    try:
        lines = [json.loads(line) for line in storage.read_bytes(url).decode().splitlines()]
        return [line for line in lines if isinstance(line.get("step"), int)]
    except (ValueError, AttributeError) as error:
        logger.warning("%s is not readable (%s); it is written anew", url, error)
        return []
