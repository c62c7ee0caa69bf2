"""ANYWHERE. How a run is doing, read from its folder: from any host, while it runs or after."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.errors import InputMissingError, StorageError
from pipeline.run_folder import STATUS, STATUS_FORMAT

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

    def lines(self) -> list[str]:
        """A few lines for people."""
        values = self.values
        lines = [f"{self.url}: {values['stage']}, {self.state}{self._since()}"]
        if values.get("doing"):
            lines.append(f"  {values['doing']}{self._tasks()}")
        if values.get("steps"):
            lines.append(f"  epoch {values['epoch']}, step {values['step']:,} of {values['steps']:,}{self._left()}")
        if values.get("metrics"):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values["metrics"].items() if value is not None)
            lines.append(f"  {shown}")
        lines += [self._rank(rank) for rank in values.get("ranks", ())]
        lines += _slowest(values.get("ranks", ()))
        if values.get("restarts"):
            lines.append(f"  restarts: {values['restarts']}")
        lines += [f"  {label}: {values[key]}" for key, label in _SENTENCES.items() if values.get(key)]
        return lines

    def _rank(self, rank: Mapping[str, Any]) -> str:
        line = f"  rank {rank['rank']} on {rank['host']} (pid {rank['pid']}): step {rank['step']:,}"
        if self.values["stage"] == "train" and self.values["state"] in ("starting", "running"):
            line += f", last sign of life {max(0.0, self.values['updated'] + self.age - rank['seen']):.0f} s ago"
        if spent := {name: rank[name] for name in _SPENT if name in rank}:
            total = max(1e-9, sum(spent.values()))
            line += "; last epoch: " + ", ".join(f"{name} {value / total:.0%}" for name, value in spent.items())
        return line

    def _tasks(self) -> str:
        total = self.values.get("total")
        return f", {self.values['done']} of {total} tasks" if total else ""

    def _since(self) -> str:
        return f", nothing written for {self.age:.0f} s: its driver may be gone" if self.state == "silent" else ""

    def _left(self) -> str:
        left = self.values.get("remaining_seconds")
        return f", about {left:.0f} s left" if left and self.state == "running" else ""


_SPENT = ("computing", "waiting", "communication", "saving")
_SLOW = 1.2


def _slowest(ranks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rank for which the others wait, where one stands out: what it spends beside communication is its own time."""
    timed = [rank for rank in ranks if all(name in rank for name in _SPENT)]
    own = {rank["rank"]: sum(rank[name] for name in _SPENT if name != "communication") for rank in timed}
    if len(own) < 2:
        return []
    slowest, middle = max(own, key=lambda rank: own[rank]), statistics.median_low(own.values())
    ratio = own[slowest] / max(1e-9, middle)
    return [f"  slowest: rank {slowest}, {ratio:.1f} times the median rank's own time"] if ratio >= _SLOW else []


_SENTENCES = {"last_event": "last event", "error": "error"}


def read_status(run_url: str) -> RunStatus:
    """The status of a run.

    Raises:
        InputMissingError: there is no run in that folder.
        StorageError: its status cannot be read.
    """
    url = storage.join(run_url, STATUS)
    if not storage.exists(url):
        raise InputMissingError(f"{run_url} holds no {STATUS}; expected a run folder; check training.run_url")
    values = storage.read_json(url, *STATUS_FORMAT)
    if lacking := [name for name in ("stage", "state", "updated") if name not in values]:
        raise StorageError(f"{url} has no {', '.join(lacking)}; expected a status; it may be corrupt")
    return RunStatus(run_url, values, max(0.0, time.time() - values["updated"]))
