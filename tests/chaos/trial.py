"""What the faults have in common: a training slow enough to be hit in the middle, and a witness who keeps the time."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from pyspark import BarrierTaskContext

from pipeline.config.training import CheckpointConfig, DeadlineConfig, ModelConfig, TrainingConfig
from pipeline.launch import launch_training
from pipeline.status import read_status
from pipeline.task import SilentReporter, TrainingResult, TrainingTask, UserCode
from tests.chaos.cluster import StandaloneCluster
from tests.stacks import exchange_settings

EPOCHS = 4
CHECKPOINT_STEPS = 5
FAULT_STEP = 22
STEP_SECONDS = 0.1


class SlowLinear(torch.nn.Module):
    """Takes its time, so that a fault can fall into the middle of training; a wrong step tells when it was."""

    def __init__(self, schema: Any, bad_rank: int | None = None, bad_step: int = 0) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(len(schema.numeric), 1)
        self.bad_rank, self.bad_step, self.steps = bad_rank, bad_step, 0

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        self.steps += self.training
        if self.steps == self.bad_step and BarrierTaskContext.get().partitionId() == self.bad_rank:
            raise ArithmeticError(f"a mistake in the user's model at {time.monotonic()}")
        time.sleep(STEP_SECONDS)
        return self.linear(inputs["numeric"]).squeeze(1)


class Witness(SilentReporter):
    """Notes when things happen, and throws the fault at the wanted step."""

    def __init__(self, fault: Callable[[], None] | None = None) -> None:
        self._fault = fault
        self.thrown = self.noticed = self.back = 0.0
        self.events: list[str] = []

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        if self._fault is not None and step >= FAULT_STEP:
            fault, self._fault = self._fault, None
            self.thrown = time.monotonic()
            threading.Thread(target=fault).start()
        elif self.noticed and not self.back:
            self.back = time.monotonic()

    def event(self, message: str) -> None:
        self.events.append(message)
        if self.thrown and not self.noticed and ("failure 1 of" in message or "preemption 1 of" in message):
            self.noticed = time.monotonic()


@dataclass
class Trial:
    """Trainings on one cluster, whose ranks exchange in one way."""

    session: Any
    cluster: StandaloneCluster
    dataset: Any
    folder: Path
    exchange: str

    def run(self, name: str) -> Path:
        """The run folder of this name."""
        return self.folder / f"{name}-{self.exchange}"

    def train(self, run: Path, witness: Witness | None = None, **options: Any) -> TrainingResult:
        model = options.pop("model", {})
        deadlines = DeadlineConfig(silence=6, step=60, launch=120)
        settings = {"num_proc": 2, "deadlines": deadlines, **exchange_settings(self.exchange), **options}
        task = task_of(self.dataset, run, model)
        return launch_training(self.session, task, self.cluster.config(**settings), tracker=witness)

    def say(self, what: str, witness: Witness) -> None:
        print(
            f"\n{what} ({self.exchange}): detected after {witness.noticed - witness.thrown:.1f} s, "
            f"training again after {witness.back - witness.thrown:.1f} s"
        )


def task_of(dataset: Any, run: Path, model: dict[str, Any]) -> TrainingTask:
    training = TrainingConfig(
        run_url=str(run),
        epochs=EPOCHS,
        seed=5,
        global_batch_size=256,
        micro_batch_size=256,
        checkpoint=CheckpointConfig(every_steps=CHECKPOINT_STEPS, keep=2),
    )
    return TrainingTask(
        dataset.url,
        dataset.content_id,
        ModelConfig(name=None, factory="tests:slow", options=model),
        training,
        UserCode(model=SlowLinear),
    )


def same(result: TrainingResult, undisturbed: TrainingResult) -> None:
    """The very weights of a training that nothing happened to, whatever carried its sums: two numbers have one sum."""
    assert result.steps == undisturbed.steps
    assert result.best_metrics == undisturbed.best_metrics
    assert _weights(result) == _weights(undisturbed)


def _weights(result: TrainingResult) -> str:
    return hashlib.sha256(Path(result.best_checkpoint, "model.safetensors").read_bytes()).hexdigest()


def rank_process(run: Path, rank: int) -> psutil.Process:
    [pid] = [entry["pid"] for entry in read_status(str(run)).values["ranks"] if entry["rank"] == rank]
    return psutil.Process(pid)


def executor(run: Path, rank: int) -> psutil.Process:
    return next(process for process in rank_process(run, rank).parents() if "java" in process.name())


def worker_of(cluster: StandaloneCluster, run: Path, rank: int) -> subprocess.Popen[bytes]:
    """The worker whose executor carries the rank."""
    parents = {process.pid for process in executor(run, rank).parents()}
    [worker] = [worker for worker in cluster.workers if worker.pid in parents]
    return worker
