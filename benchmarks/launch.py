"""How long it takes until ranks train: the launchers, two ranks with nothing to do, Spark already up.

python -m benchmarks.launch [REPEATS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.results_file import document, keep, table
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.launch import launch_training
from pipeline.launch.session import spark_session
from pipeline.task import TrainingTask

LAUNCHERS: dict[str, dict[str, Any]] = {
    "barrier over Horovod": {"launcher": "barrier", "collective": "horovod"},
    "barrier over torch": {"launcher": "barrier", "collective": "torch"},
    "horovod.spark.run": {"launcher": "horovod"},
    "in process, one rank": {"launcher": "in_process"},
}


def nothing(task: Any, collective: Any, reporter: Any, stop: Any) -> int:
    """The body of a rank that has nothing to do."""
    return int(collective.world_size)


def seconds(spark: Any, launcher: dict[str, Any], folder: Path) -> float:
    """One launch, from the call to the result."""
    task = TrainingTask("none", "none", ModelConfig(name="linear"), TrainingConfig(run_url=str(folder)))
    cluster = ClusterConfig(master="local[2]", num_proc=2, **launcher)
    began = time.monotonic()
    launch_training(spark, task, cluster, body=nothing)
    return time.monotonic() - began


def measure(spark: Any, folder: Path, launchers: Iterable[str] = LAUNCHERS, repeats: int = 5) -> dict[str, Any]:
    """First launch (imports included), then the median and range of the repeated ones, in seconds."""
    results: dict[str, Any] = {}
    for name in launchers:
        times = [seconds(spark, LAUNCHERS[name], folder / name.replace(" ", "-")) for _ in range(repeats + 1)]
        results[name] = {
            "first": round(times[0], 2),
            "median": round(statistics.median(times[1:]), 2),
            "range": [round(min(times[1:]), 2), round(max(times[1:]), 2)],
        }
    return results


def page(sections: Mapping[str, Any]) -> list[str]:
    """The result for people."""
    found = sections["seconds"]
    rows = [
        [name, one["first"], one["median"], " to ".join(map(str, one["range"]))]
        for name, one in found.items()
        if name in LAUNCHERS
    ]
    barrier, run = found["barrier over Horovod"]["median"], found["horovod.spark.run"]["median"]
    lines = [
        *table(["launcher", "first s (with imports)", "median of the next s", "range s"], rows),
        f"* the session itself: {found['session']['first']} s",
        f"* a barrier stage starts ranks {run / max(barrier, 0.01):.0f} times as fast as horovod.spark.run",
    ]
    return document("Launching two ranks that have nothing to do, Spark already up", sections["machine"], [], lines)


def main() -> None:
    """Measure and keep."""
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        with spark_session(ClusterConfig(master="local[2]"), name) as spark:
            spark.range(1).count()
            session = {"first": round(time.monotonic() - began, 2)}
            found = measure(spark, Path(name), repeats=int(sys.argv[1]) if sys.argv[1:] else 5)
    keep("launch", {"seconds": {"session": session, **found}}, page)


if __name__ == "__main__":
    from benchmarks.launch import main as imported_main  # ranks must be able to import `nothing`

    imported_main()
