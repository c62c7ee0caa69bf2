"""Faults thrown at trainings on a real cluster of processes: each ends as promised, and within the printed time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark import cloudpickle

from pipeline.config.release import TrackingConfig
from pipeline.errors import RankFailedError, StorageError
from pipeline.launch.session import spark_session
from pipeline.task import TrainingResult
from pipeline.testing import tiny_dataset
from pipeline.tracking import Tracker
from pipeline.training.checkpoint import published_steps
from tests.chaos import trial as trial_module
from tests.chaos.cluster import StandaloneCluster, standalone_cluster
from tests.chaos.trial import FAULT_STEP, Trial, Witness, executor, rank_process, same, worker_of
from tests.stacks import EXCHANGES, IN_MEMORY

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def own_code_travels_by_value() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(trial_module)
    yield
    cloudpickle.unregister_pickle_by_value(trial_module)


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


@pytest.fixture(params=EXCHANGES)
def trial(request: pytest.FixtureRequest, session: Any, cluster: Any, dataset: Any, folder: Path) -> Trial:
    return Trial(session, cluster, dataset, folder, request.param)


@pytest.fixture(scope="module")
def undisturbed(session: Any, cluster: Any, dataset: Any, folder: Path) -> TrainingResult:
    began = time.monotonic()
    calm = Trial(session, cluster, dataset, folder, IN_MEMORY)
    result = calm.train(calm.run("undisturbed"))
    print(f"\nundisturbed ({calm.exchange}): {result.steps} steps in {time.monotonic() - began:.1f} s")
    return result


def test_a_killed_executor_is_replaced_and_the_weights_are_the_same(trial: Trial, undisturbed: TrainingResult) -> None:
    run = trial.run("executor")
    witness = Witness(lambda: executor(run, 1).kill())
    same(trial.train(run, witness), undisturbed)
    trial.say("executor killed", witness)


def test_a_killed_rank_restarts_and_the_weights_are_the_same(trial: Trial, undisturbed: TrainingResult) -> None:
    run = trial.run("rank")
    witness = Witness(lambda: rank_process(run, 1).kill())
    same(trial.train(run, witness), undisturbed)
    trial.say("rank killed", witness)


def test_a_stopped_rank_is_named_and_replaced(trial: Trial, undisturbed: TrainingResult) -> None:
    run = trial.run("stopped")
    stopped: list[psutil.Process] = []

    def stop() -> None:
        stopped.append(rank_process(run, 1))
        stopped[0].send_signal(signal.SIGSTOP)

    witness = Witness(stop)
    same(trial.train(run, witness), undisturbed)
    assert any(event.startswith("rank 1 on ") and "no sign of life" in event for event in witness.events)
    assert not psutil.wait_procs(stopped, timeout=10)[1]
    trial.say("rank stopped (SIGSTOP, cluster.deadlines.silence=6)", witness)


def test_a_rank_that_is_told_to_end_saves_first_and_loses_no_step(trial: Trial, undisturbed: TrainingResult) -> None:
    run = trial.run("told")
    witness = Saving(run, lambda: rank_process(run, 1).terminate())
    same(trial.train(run, witness, max_failures=0), undisturbed)
    assert any("preemption 1 of" in event for event in witness.events)
    assert witness.saved >= FAULT_STEP
    trial.say("rank told to end (SIGTERM)", witness)


def test_a_decommissioned_worker_is_left_after_its_rank_has_saved_and_no_step_is_lost(
    trial: Trial, undisturbed: TrainingResult
) -> None:
    run = trial.run("decommissioned")

    workers: list[subprocess.Popen[bytes]] = []

    def decommission() -> None:
        workers.append(worker_of(trial.cluster, run, 1))
        workers[0].send_signal(signal.SIGPWR)
        trial.cluster.add_worker()  # the node that comes in its place

    witness = Saving(run, decommission)
    same(trial.train(run, witness, max_failures=0), undisturbed)
    assert any(
        "will be taken away (decommissioned)" in event and "preemption 1 of" in event for event in witness.events
    )
    assert witness.saved >= FAULT_STEP
    trial.say("worker decommissioned, another one comes", witness)


class Saving(Witness):
    """Looks which step was saved last when training restarts."""

    def __init__(self, run: Path, fault: Callable[[], None]) -> None:
        super().__init__(fault)
        self._run = run
        self.saved = 0

    def event(self, message: str) -> None:
        super().event(message)
        if message.startswith("restarting"):
            self.saved = max(published_steps(str(self._run)))


def test_an_error_in_one_rank_ends_all_within_seconds(trial: Trial) -> None:
    with pytest.raises(RankFailedError, match=r"rank 1 on .*ArithmeticError: a mistake in the user's model") as caught:
        trial.train(trial.run("error"), model={"bad_rank": 1, "bad_step": 10})
    ended = time.monotonic()
    assert "in forward" in (caught.value.detail or "")
    [raised] = re.findall(r"user's model at ([\d.]+)", str(caught.value))
    print(f"\nerror in one rank ({trial.exchange}): training ended {ended - float(raised):.1f} s after it")


def test_a_flipped_byte_in_the_newest_checkpoint_costs_its_steps_only(
    trial: Trial, undisturbed: TrainingResult
) -> None:
    run = trial.run("flipped")
    witness = Witness(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trial.train(run, witness)
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    weights = newest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    again = Noticing(newest.name)
    began = time.monotonic()
    same(trial.train(run, again), undisturbed)
    print(
        f"\nbyte flipped ({trial.exchange}): detected {again.noticed - began:.1f} s after the start of the "
        f"resumed run, training again after {again.back - began:.1f} s"
    )


class Noticing(Witness):
    """Waits for an event that has a word in it."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def event(self, message: str) -> None:
        super().event(message)
        if self._word in message and not self.noticed:
            self.noticed = time.monotonic()


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


def test_a_full_disk_of_checkpoints_is_an_error_that_names_it(trial: Trial, undisturbed: TrainingResult) -> None:
    with _small_disk(trial.run("disk"), "256k") as disk:
        run = disk / "run"
        ballast = disk / "ballast"
        witness = Witness(lambda: _fill(ballast))
        with pytest.raises(StorageError, match="the disk is full"):
            trial.train(run, witness)
        print(f"\ndisk full ({trial.exchange}): ended {time.monotonic() - witness.thrown:.1f} s after it was filled")
        ballast.unlink()
        same(trial.train(run), undisturbed)


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
    """No rank knows of MLflow, so one collective is enough."""
    trial = Trial(session, cluster, dataset, folder, IN_MEMORY)
    run = trial.run("tracked")
    tracking = TrackingConfig(uri=f"http://127.0.0.1:{free_port}", experiment="chaos")
    with _mlflow_server(folder / "mlflow", free_port) as server, Tracker(tracking, str(run), 40) as tracker:
        tracker.metrics({"before_the_fault": 1.0}, 0)  # the run is opened with the first thing to log
        _wait_until(lambda: tracker.run_id is not None, 200)
        began = time.monotonic()
        witness = WitnessAndTracker(lambda: _kill_group(server), tracker)
        same(trial.train(run, witness), undisturbed)
        print(f"\nMLflow server killed: training ended {time.monotonic() - began:.1f} s after its start, undisturbed")
    assert (run / "tracking-pending.jsonl").read_text().count("validation_loss") >= 1


def test_a_killed_worker_leaves_fewer_ranks_that_finish_the_work(trial: Trial, undisturbed: TrainingResult) -> None:
    run = trial.run("worker")

    def kill() -> None:
        worker_of(trial.cluster, run, 1).kill()

    witness = Witness(kill)
    try:
        result = trial.train(run, witness, min_proc=1)
    finally:
        trial.cluster.add_worker()  # for those who come after
        trial.cluster.wait_for_worker()
    assert result.steps == undisturbed.steps
    assert result.rows == undisturbed.rows
    assert any("on 1 ranks" in event for event in witness.events)
    trial.say("worker killed, one rank left", witness)


def test_zz_nothing_of_the_runs_is_left(session: Any, cluster: StandaloneCluster) -> None:
    deadline = time.monotonic() + 70  # Spark keeps idle Python workers for a minute
    ranks: list[psutil.Process] = []
    while time.monotonic() < deadline:
        ranks = [p for p in cluster.processes() if p.num_threads() > 4 and "pyspark.daemon" in p.cmdline()]
        if not ranks:
            return
        time.sleep(1)
    raise AssertionError(f"left: {ranks}")
