"""How long it takes until ranks train: the three launchers, two ranks with nothing to do, Spark already up.

python -m benchmarks.launch [REPEATS]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.launch import launch_training
from pipeline.launch.session import spark_session
from pipeline.task import TrainingTask

LAUNCHERS = ("barrier", "horovod", "in_process")


def nothing(task: Any, collective: Any, reporter: Any, stop: Any) -> int:
    """The body of a rank that has nothing to do."""
    return int(collective.world_size)


def seconds(spark: Any, launcher: str, folder: Path) -> float:
    """One launch, from the call to the result."""
    task = TrainingTask("none", "none", ModelConfig(name="linear"), TrainingConfig(run_url=str(folder)))
    cluster = ClusterConfig(master="local[2]", num_proc=2, launcher=launcher)
    began = time.monotonic()
    launch_training(spark, task, cluster, body=nothing)
    return time.monotonic() - began


def measure(repeats: int = 5) -> dict[str, Any]:
    """First launch (imports included), then the median and range of the repeated ones, in seconds."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        with spark_session(ClusterConfig(master="local[2]"), folder) as spark:
            spark.range(1).count()
            results["session"] = {"first": round(time.monotonic() - began, 2)}
            for launcher in LAUNCHERS:
                times = [seconds(spark, launcher, Path(folder, launcher)) for _ in range(repeats + 1)]
                results[launcher] = {
                    "first": round(times[0], 2),
                    "median": round(statistics.median(times[1:]), 2),
                    "range": [round(min(times[1:]), 2), round(max(times[1:]), 2)],
                }
    return results


def main() -> None:
    """Print the measurement as JSON."""
    print(json.dumps({"launch_seconds": measure(*(int(a) for a in sys.argv[1:2]))}, indent=1))


if __name__ == "__main__":
    from benchmarks.launch import main as imported_main  # ranks must be able to import `nothing`

    imported_main()
