"""ANYWHERE. How a run is doing, read from its folder: from any host, while it runs or after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.errors import InputMissingError

_FORMAT = ("status", 1)
_STALE_SECONDS = 30.0


@dataclass(frozen=True)
class RunStatus:
    """What ``status.json`` said when it was read.

    Attributes:
        values: its content: ``stage``, ``state``, ``step``, ``steps``, ``ranks``, ``restarts``...
        age: seconds since the driver wrote it, by the clocks of the two hosts.
    """

    url: str
    values: Mapping[str, Any]
    age: float

    @property
    def state(self) -> str:
        """starting, running, finished, failed, interrupted; or silent: it should run, but nobody writes."""
        state = str(self.values["state"])
        return "silent" if state in ("starting", "running") and self.age > _STALE_SECONDS else state

    def to_json(self) -> dict[str, Any]:
        """Plain values for a RESULT line."""
        return {**self.values, "state": self.state, "age_seconds": round(self.age, 1)}

    def lines(self) -> list[str]:
        """A few lines for people."""
        values = self.values
        lines = [f"{self.url}: {values['stage']}, {self.state}{self._since()}"]
        if values.get("steps"):
            lines.append(f"  epoch {values['epoch']}, step {values['step']:,} of {values['steps']:,}{self._left()}")
        if values.get("metrics"):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values["metrics"].items() if value is not None)
            lines.append(f"  {shown}")
        lines += [
            f"  rank {rank['rank']} on {rank['host']} (pid {rank['pid']}): step {rank['step']:,}, "
            f"last sign of life {rank['seconds_silent'] + self.age:.0f} s ago"
            for rank in values.get("ranks", ())
        ]
        if values.get("restarts"):
            lines.append(f"  restarts: {values['restarts']}")
        lines += [f"  {label}: {values[key]}" for key, label in _SENTENCES.items() if values.get(key)]
        return lines

    def _since(self) -> str:
        return f", nothing written for {self.age:.0f} s: its driver may be gone" if self.state == "silent" else ""

    def _left(self) -> str:
        left = self.values.get("remaining_seconds")
        return f", about {left:.0f} s left" if left and self.state == "running" else ""


_SENTENCES = {"last_event": "last event", "error": "error"}


def read_status(run_url: str) -> RunStatus:
    """The status of a run.

    Raises:
        InputMissingError: there is no run in that folder.
        StorageError: its status cannot be read.
    """
    url = storage.join(run_url, "status.json")
    if not storage.exists(url):
        raise InputMissingError(f"{run_url} holds no status.json; expected a run folder; check training.run_url")
    values = storage.read_json(url, *_FORMAT)
    return RunStatus(run_url, values, max(0.0, time.time() - values["updated"]))
