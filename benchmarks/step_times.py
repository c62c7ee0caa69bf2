"""Where a step of two ranks goes: computing, waiting for the slower one, the exchange itself, and other threads.

All ranks of a machine share its monotonic clock, so that what one rank notes can be laid beside what the other does.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.task import TrainingResult, TrainingTask
from pipeline.training import step
from pipeline.training.worker import train

_WARM_UP = 50
_TICKS = os.sysconf("SC_CLK_TCK")


def timed(task: TrainingTask, collective: Any, reporter: Any, stop: Any) -> TrainingResult:
    """The body of a rank: train, and leave the moments of each step in the run folder."""
    moments: list[tuple[float, float, float]] = []
    reduce = step.mean_gradients

    def reduce_and_note(*arguments: Any) -> step.Totals:
        began = time.monotonic()
        sums = reduce(*arguments)
        moments.append((began, time.monotonic(), time.thread_time()))
        return sums

    step.mean_gradients = reduce_and_note
    before = _other_threads()
    try:
        result = train(task, collective, reporter, stop)
    finally:
        step.mean_gradients = reduce
    noted = {"moments": moments, "others": _other_threads() - before}
    name = f"moments-{collective.rank}.json"
    storage.write_bytes(storage.join(task.training.run_url, name), json.dumps(noted).encode())
    return result


def _other_threads() -> float:
    """Processor seconds of all threads of this process but the one that calls; Linux."""
    mine, total = threading.get_native_id(), 0.0
    for thread in Path("/proc/self/task").iterdir():
        if int(thread.name) != mine:
            user, system = (thread / "stat").read_text().rpartition(")")[2].split()[11:13]
            total += (int(user) + int(system)) / _TICKS
    return total


def parts_of_a_step(run: Path, ranks: int) -> dict[str, float]:
    """Means in milliseconds over ranks and steps, without the first steps and those with a validation before them."""
    noted = [json.loads((run / f"moments-{rank}.json").read_text()) for rank in range(ranks)]
    moments = np.array([one["moments"][_WARM_UP:] for one in noted])
    began, ended, processor = moments[:, :, 0], moments[:, :, 1], moments[:, :, 2]
    lengths, steps = np.diff(ended), len(noted[0]["moments"])
    usual = (lengths < 10 * np.median(lengths)).all(0)
    waiting, exchange = began.max(0) - began, ended - began.max(0)
    seconds = {
        "step": lengths[:, usual].mean(),
        "computing": (began[:, 1:] - ended[:, :-1])[:, usual].mean(),
        "of it on the processor": np.diff(processor)[:, usual].mean(),
        "waiting for the slower rank": waiting.mean(),
        "exchange": exchange.mean(),
        "exchange, median": np.median(exchange),
        "other threads' processor time": float(np.mean([one["others"] for one in noted])) / steps,
    }
    return {name: round(1000 * float(value), 2) for name, value in seconds.items()}
