"""Real ranks as subprocesses on the loopback interface, and what each of them does.

`run_ranks` starts them; run as a program, this file is one rank: it trains the task of a JSON file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.errors import InterruptedRunError
from pipeline.launch.rank import horovod_environment
from pipeline.launch.rendezvous import rendezvous
from pipeline.launch.resources import Place, places
from pipeline.task import SilentReporter, TrainingTask
from pipeline.training import loop
from pipeline.training.checkpoint import open_checkpoint, published_steps, step_url
from pipeline.training.collective import Collective, HorovodCollective, SoloCollective
from pipeline.training.shared_memory import share_memory
from pipeline.training.step import Wishes, train_step
from pipeline.training.torch_collective import TorchCollective
from pipeline.training.worker import train
from tests.fifty_steps import weights_after
from tests.stacks import DEFAULT_COLLECTIVE, exchange_settings

DEADLINE_SECONDS = 1500
REPOSITORY = Path(__file__).resolve().parents[2]


def spec(dataset: Any, folder: Path, **training: Any) -> dict[str, Any]:
    """A task as JSON: a small model with dropout, so that random states matter."""
    defaults = {
        "run_url": str(folder),
        "epochs": 2,
        "seed": 3,
        "global_batch_size": 96,
        "micro_batch_size": 1024,
        "optimizer": {"name": "AdamW", "learning_rate": 0.01},
    }
    return {
        "dataset": [dataset.url, dataset.content_id],
        "model": {"name": "tabular", "options": {"hidden": [16, 8], "dropout": 0.2, "norm": "batch"}},
        "training": {**defaults, **training},
    }


def task_of(spec: dict[str, Any]) -> TrainingTask:
    return TrainingTask(
        *spec["dataset"],
        ModelConfig.model_validate(spec["model"]),
        TrainingConfig.model_validate(spec["training"]),
    )


@contextlib.contextmanager
def started_ranks(
    count: int, arguments: list[str], stack: str = DEFAULT_COLLECTIVE
) -> Iterator[list[subprocess.Popen[str]]]:
    """Ranks of one job over Horovod or torch, or brought together by one of them "in memory"; killed at the end if they
    still live."""
    with rendezvous(exchange_settings(stack)["collective"], "127.0.0.1") as port:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.distributed.ranks", *arguments, stack],
                cwd=REPOSITORY,
                env={**os.environ, **_environment(place, port)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for place in places(["127.0.0.1"] * count)
        ]
        try:
            yield ranks
        finally:
            for rank in ranks:
                if rank.poll() is None:
                    rank.kill()
                rank.communicate()


def _environment(place: Place, port: int) -> dict[str, str]:
    """Of one rank: it has one core, as from the launcher; threads of several would spin for each other's cores."""
    own = {"TEST_RANK": str(place.rank), "TEST_SIZE": str(place.world_size), "TEST_PORT": str(port)}
    own["OMP_NUM_THREADS"] = "1"
    return {**horovod_environment(place, "127.0.0.1", ("127.0.0.1", port)), "GLOO_SOCKET_IFNAME": "lo", **own}


def _collective(stack: str) -> Collective:
    """Of the environment that this rank was started with."""
    settings = exchange_settings(stack)
    if settings["shared_memory"]:
        shared = share_memory(_collective(settings["collective"]), DEADLINE_SECONDS)
        assert shared.shares_memory
        return shared
    if stack == "horovod":
        return HorovodCollective()
    rank, size, port = (int(os.environ[f"TEST_{name}"]) for name in ("RANK", "SIZE", "PORT"))
    return TorchCollective(rank, size, rank, ("127.0.0.1", port))


def run_ranks(
    count: int, specs: list[dict[str, Any]], folder: Path, stack: str = DEFAULT_COLLECTIVE
) -> list[list[dict[str, Any]]]:
    """Train one after the other in the same processes, as Spark reuses them.

    Returns:
        For each spec what each rank says of it: its result, or ``{"interrupted": message}``.
    """
    if count == 1:
        collective = SoloCollective()
        return [[attempt(spec, collective)] for spec in specs]
    path = folder / f"specs-{time.monotonic_ns()}.json"
    path.write_text(json.dumps(specs))
    with started_ranks(count, [str(path)], stack) as ranks:
        outputs = [rank.communicate(timeout=DEADLINE_SECONDS) for rank in ranks]
    failed = [error for rank, (_, error) in zip(ranks, outputs, strict=True) if rank.returncode]
    assert not failed, "\n".join(failed)
    lines = [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out, _ in outputs]
    return [list(of_one_spec) for of_one_spec in zip(*lines, strict=True)]


def fingerprints(run_url: str) -> dict[str, str]:
    """The sha256 of every tensor of the newest checkpoint, except random states that no later step uses."""
    checkpoint = open_checkpoint(step_url(run_url, published_steps(run_url)[-1]))
    found = {}
    for file in checkpoint.files:
        if file.endswith(".safetensors"):
            tensors = safetensors.torch.load((Path(checkpoint.url) / file).read_bytes())
            found |= {
                f"{file} {name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
                for name, tensor in tensors.items()
            }
    return found


class _Events(SilentReporter):
    def event(self, message: str) -> None:
        print(message, file=sys.stderr)


def attempt(spec: dict[str, Any], collective: Collective) -> dict[str, Any]:
    """Train once. ``stop_after`` asks the last rank to end after so many steps, ``kill_after`` kills a rank in one."""
    if "fifty_steps" in spec:
        return {"weights": weights_after(collective, **spec["fifty_steps"]).tolist()}
    steps = [0]

    def step(learner: Any, batch: Any, number: int, wishes: Wishes) -> Any:
        steps[0] += 1
        if steps[0] == spec.get("kill_after") and collective.rank == spec.get("kill_rank", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        told = steps[0] == spec.get("stop_after") and collective.rank == collective.world_size - 1
        return train_step(learner, batch, number, replace(wishes, stop=told))

    sent = collective.bytes_sent
    try:
        with mock.patch.object(loop, "train_step", step):
            result = train(task_of(spec), collective, _Events(), lambda: False)
        return {"result": vars(result), "bytes_sent": collective.bytes_sent - sent}
    except InterruptedRunError as error:
        return {"interrupted": str(error)}


def main(path: str, stack: str) -> None:
    """Be one rank."""
    collective = _collective(stack)
    for spec in json.loads(Path(path).read_text()):
        print(json.dumps(attempt(spec, collective)))
    collective.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
