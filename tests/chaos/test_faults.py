"""Faults thrown at trainings on a real cluster of processes: each ends as promised, and within the printed time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pyspark import cloudpickle

from pipeline.config.release import TrackingConfig
from pipeline.config.training import CheckpointConfig, DeadlineConfig, ModelConfig, TrainingConfig
from pipeline.errors import RankFailedError, StorageError
from pipeline.launch import launch_training
from pipeline.launch.session import spark_session
from pipeline.status import read_status
from pipeline.task import SilentReporter, TrainingResult, TrainingTask, UserCode
from pipeline.testing import tiny_dataset
from pipeline.tracking import Tracker
from tests.chaos.cluster import StandaloneCluster, standalone_cluster

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(600)]

EPOCHS = 4
CHECKPOINT_STEPS = 5
FAULT_STEP = 22
STEP_SECONDS = 0.1


@pytest.fixture(scope="module", autouse=True)
def own_code_travels_by_value() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[StandaloneCluster]:
    with standalone_cluster(folder, workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def session(cluster: StandaloneCluster, folder: Path) -> Iterator[Any]:
    with spark_session(cluster.config(), str(folder / "workspace")) as session:
        yield session


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Any:
    return tiny_dataset(str(folder / "dataset"), 4000)


class SlowLinear(torch.nn.Module):
    """Takes its time, so that a fault can fall into the middle of training."""

    def __init__(self, schema: Any, bad_rank: int | None = None, bad_step: int = 0) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(len(schema.numeric), 1)
        self.bad_rank, self.bad_step, self.steps = bad_rank, bad_step, 0

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        self.steps += self.training
        if os.environ.get("HOROVOD_RANK") == str(self.bad_rank) and self.steps == self.bad_step:
            raise ArithmeticError("a mistake in the user's model")
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

    def say(self, what: str) -> None:
        print(
            f"\n{what}: detected after {self.noticed - self.thrown:.1f} s, "
            f"training again after {self.back - self.thrown:.1f} s"
        )


def _task(dataset: Any, run: Path, **model: Any) -> TrainingTask:
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


def _train(session: Any, cluster: Any, dataset: Any, run: Path, witness: Any = None, **options: Any) -> Any:
    model = options.pop("model", {})
    settings = {"num_proc": 2, "deadlines": DeadlineConfig(silence=6, step=60, launch=120), **options}
    return launch_training(session, _task(dataset, run, **model), cluster.config(**settings), tracker=witness)


def _weights(result: TrainingResult) -> str:
    return hashlib.sha256(Path(result.best_checkpoint, "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(session: Any, cluster: Any, dataset: Any, folder: Path) -> TrainingResult:
    began = time.monotonic()
    result = _train(session, cluster, dataset, folder / "undisturbed")
    print(f"\nundisturbed: {result.steps} steps in {time.monotonic() - began:.1f} s")
    return result


def _rank_process(run: Path, rank: int) -> psutil.Process:
    [pid] = [entry["pid"] for entry in read_status(str(run)).values["ranks"] if entry["rank"] == rank]
    return psutil.Process(pid)


def _executor(run: Path, rank: int) -> psutil.Process:
    return next(process for process in _rank_process(run, rank).parents() if "java" in process.name())


def _same(result: TrainingResult, undisturbed: TrainingResult) -> None:
    assert result.steps == undisturbed.steps
    assert result.best_metrics == undisturbed.best_metrics
    assert _weights(result) == _weights(undisturbed)


def test_a_killed_executor_is_replaced_and_the_weights_are_the_same(
    session: Any, cluster: Any, dataset: Any, folder: Path, undisturbed: TrainingResult
) -> None:
    run = folder / "executor"
    witness = Witness(lambda: _executor(run, 1).kill())
    _same(_train(session, cluster, dataset, run, witness), undisturbed)
    witness.say("executor killed")


def test_a_killed_rank_restarts_and_the_weights_are_the_same(
    session: Any, cluster: Any, dataset: Any, folder: Path, undisturbed: TrainingResult
) -> None:
    run = folder / "rank"
    witness = Witness(lambda: _rank_process(run, 1).kill())
    _same(_train(session, cluster, dataset, run, witness), undisturbed)
    witness.say("rank killed")


def test_a_stopped_rank_is_named_and_replaced(
    session: Any, cluster: Any, dataset: Any, folder: Path, undisturbed: TrainingResult
) -> None:
    run = folder / "stopped"
    stopped: list[psutil.Process] = []

    def stop() -> None:
        stopped.append(_rank_process(run, 1))
        stopped[0].send_signal(signal.SIGSTOP)

    witness = Witness(stop)
    _same(_train(session, cluster, dataset, run, witness), undisturbed)
    assert any(event.startswith("rank 1 on ") and "no sign of life" in event for event in witness.events)
    assert not psutil.wait_procs(stopped, timeout=10)[1]
    witness.say("rank stopped (SIGSTOP, cluster.deadlines.silence=6)")


def test_a_preempted_executor_saves_first_and_loses_no_step(
    session: Any, cluster: Any, dataset: Any, folder: Path, undisturbed: TrainingResult
) -> None:
    run = folder / "preempted"
    witness = Witness(lambda: _rank_process(run, 1).terminate())
    _same(_train(session, cluster, dataset, run, witness, max_failures=0), undisturbed)
    assert any("preemption 1 of" in event for event in witness.events)
    witness.say("rank preempted (SIGTERM)")


def test_an_error_in_one_rank_ends_all_within_seconds(session: Any, cluster: Any, dataset: Any, folder: Path) -> None:
    began = time.monotonic()
    with pytest.raises(RankFailedError, match=r"rank 1 on .*ArithmeticError: a mistake in the user's model") as caught:
        _train(session, cluster, dataset, folder / "error", model={"bad_rank": 1, "bad_step": 10})
    assert "in forward" in (caught.value.detail or "")
    print(
        f"\nerror in one rank: ended {time.monotonic() - began - 10 * STEP_SECONDS:.1f} s after launch, less 10 steps"
    )


def test_a_flipped_byte_in_the_newest_checkpoint_costs_its_steps_only(
    session: Any, cluster: Any, dataset: Any, folder: Path, undisturbed: TrainingResult
) -> None:
    run = folder / "flipped"
    witness = Witness(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        _train(session, cluster, dataset, run, witness)
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    weights = newest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    again = Witness()
    _same(_train(session, cluster, dataset, run, again), undisturbed)
    assert any(newest.name in event or str(newest) in event for event in again.events)


@contextlib.contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_of_checkpoints_is_an_error_that_names_it(
    session: Any, cluster: Any, dataset: Any, folder: Path, undisturbed: TrainingResult
) -> None:
    with _small_disk(folder / "disk", "256k") as disk:
        run = disk / "run"
        ballast = disk / "ballast"
        witness = Witness(lambda: _fill(ballast))
        with pytest.raises(StorageError, match="the disk is full"):
            _train(session, cluster, dataset, run, witness)
        print(f"\ndisk full: ended {time.monotonic() - witness.thrown:.1f} s after the disk was filled")
        ballast.unlink()
        _same(_train(session, cluster, dataset, run), undisturbed)


def _fill(path: Path) -> None:
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while True:
            os.write(file, b"\0" * 4096)
    os.close(file)


@contextlib.contextmanager
def _mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir()
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "TMPDIR": str(folder), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = subprocess.Popen(
            [*command, *store], stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield server
    finally:
        _kill_group(server)


def _kill_group(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _wait_until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.5)


class WitnessAndTracker(Witness):
    """Passes what it hears on to MLflow, as the flow does."""

    def __init__(self, fault: Callable[[], None], tracker: Tracker) -> None:
        super().__init__(fault)
        self.metrics = tracker.metrics  # type: ignore[method-assign]


def test_a_stopped_mlflow_server_changes_nothing_and_its_metrics_wait(
    session: Any, cluster: Any, dataset: Any, folder: Path, undisturbed: TrainingResult, free_port: int
) -> None:
    run = folder / "tracked"
    tracking = TrackingConfig(uri=f"http://127.0.0.1:{free_port}", experiment="chaos")
    with _mlflow_server(folder / "mlflow", free_port) as server, Tracker(tracking, str(run), 40) as tracker:
        tracker.metrics({"before_the_fault": 1.0}, 0)  # the run is opened with the first thing to log
        _wait_until(lambda: tracker.run_id is not None, 200)
        began = time.monotonic()
        witness = WitnessAndTracker(lambda: _kill_group(server), tracker)
        _same(_train(session, cluster, dataset, run, witness), undisturbed)
        print(f"\nMLflow server killed: training ended {time.monotonic() - began:.1f} s after its start, undisturbed")
    assert (run / "tracking-pending.jsonl").read_text().count("validation_loss") >= 1


def test_z_a_killed_worker_leaves_fewer_ranks_that_finish_the_work(
    session: Any, cluster: StandaloneCluster, dataset: Any, folder: Path, undisturbed: TrainingResult
) -> None:
    """Last, since the cluster is smaller afterwards."""
    run = folder / "worker"

    def kill() -> None:
        parents = {process.pid for process in _executor(run, 1).parents()}
        [worker] = [worker for worker in cluster.workers if worker.pid in parents]
        worker.kill()

    witness = Witness(kill)
    result = _train(session, cluster, dataset, run, witness, min_proc=1)
    assert result.steps == undisturbed.steps
    assert result.rows == undisturbed.rows
    assert any("on 1 ranks" in event for event in witness.events)
    witness.say("worker killed")


def test_zz_nothing_of_the_runs_is_left(session: Any, cluster: StandaloneCluster) -> None:
    deadline = time.monotonic() + 70  # Spark keeps idle Python workers for a minute
    ranks: list[psutil.Process] = []
    while time.monotonic() < deadline:
        ranks = [p for p in cluster.processes() if p.num_threads() > 4 and "pyspark.daemon" in p.cmdline()]
        if not ranks:
            return
        time.sleep(1)
    raise AssertionError(f"left: {ranks}")
