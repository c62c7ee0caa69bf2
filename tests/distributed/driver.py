"""A driver with two ranks in a barrier stage that can be killed: `python -m tests.distributed.driver SPEC.json`.

The spec is that of `tests.distributed.ranks`; with ``kill_after`` rank 0 kills the driver in that step.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from pipeline.config.training import ClusterConfig
from pipeline.launch import launch_training
from pipeline.launch.session import spark_session
from pipeline.training import loop
from pipeline.training.step import train_step
from pipeline.training.worker import train
from tests.distributed.ranks import REPOSITORY, task_of

_MARK = "TEST_DRIVER_OF"


def killed_driver(spec: dict[str, Any], folder: Path) -> float:
    """Start a driver, let it be killed in the step that the spec says, and wait until all that it started is gone.

    Returns:
        The seconds of that waiting.
    """
    path = folder / "driver.json"
    path.write_text(json.dumps(spec))
    mark = f"{path}-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "tests.distributed.driver", str(path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, _MARK: mark}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = time.monotonic()
    deadline = killed + 60
    while left := [process for process in psutil.process_iter() if _belongs_to(process, mark)]:
        assert time.monotonic() < deadline, f"left by the killed driver: {left}"
        time.sleep(0.2)
    return time.monotonic() - killed


def _belongs_to(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(_MARK) == mark
    except psutil.Error:
        return False


def train_and_kill(driver: int, kill_after: int, task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    """The body of a rank: train, and kill the driver in a step if this is rank 0."""
    steps = [0]

    def step(learner: Any, batch: Any, number: int, wishes: Any) -> Any:
        steps[0] += 1
        if steps[0] == kill_after and collective.rank == 0:
            os.kill(driver, signal.SIGKILL)
        return train_step(learner, batch, number, wishes)

    with mock.patch.object(loop, "train_step", step):
        return train(task, collective, reporter, stop)


def main(path: str) -> None:
    """Be the driver."""
    spec = json.loads(Path(path).read_text())
    cluster = ClusterConfig(master="local[2]", num_proc=2, **spec["cluster"])
    with spark_session(cluster, str(Path(path).parent / "spark")) as spark:
        body = partial(train_and_kill, os.getpid(), spec["kill_after"])
        launch_training(spark, task_of(spec), cluster, body=body)


if __name__ == "__main__":
    from tests.distributed.driver import main as imported_main  # ranks must be able to import the body

    imported_main(sys.argv[1])
