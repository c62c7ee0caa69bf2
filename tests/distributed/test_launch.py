"""Two real ranks in a Spark barrier stage, over each collective: results, errors, kills, hangs, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle as horovods_cloudpickle
import numpy as np
import pytest
from pyspark import cloudpickle

import pipeline.launch.reporter as reporter_module
from pipeline.config.training import ClusterConfig, DeadlineConfig, ModelConfig, TrainingConfig
from pipeline.errors import ConfigError, InterruptedRunError, RankFailedError, StorageError
from pipeline.launch import attempt as attempt_module
from pipeline.launch import launch_training
from pipeline.launch.attempt import Attempt
from pipeline.launch.rank import RankCall
from pipeline.launch.record import RunRecord
from pipeline.launch.reporter import ChannelReporter
from pipeline.task import SilentReporter, TrainingTask
from tests.spark_jobs import ends_all_jobs
from tests.stacks import EXCHANGES, IN_MEMORY, exchange_settings, needs_horovod

pytestmark = pytest.mark.distributed


@pytest.fixture(autouse=True)
def bodies_travel_by_value() -> Iterator[None]:
    """Workers cannot import test modules; horovod.spark.run ships functions with its own cloudpickle."""
    for shipper in (cloudpickle, horovods_cloudpickle):
        shipper.register_pickle_by_value(sys.modules[__name__])
    yield
    for shipper in (cloudpickle, horovods_cloudpickle):
        shipper.unregister_pickle_by_value(sys.modules[__name__])


def _cluster(**options: Any) -> ClusterConfig:
    return ClusterConfig(master="local[2]", num_proc=2, **options)


def _train(spark: Any, folder: Path, body: Any, exchange: str = IN_MEMORY, tracker: Any = None, **options: Any) -> Any:
    task = TrainingTask("data", "id", ModelConfig(name="linear"), TrainingConfig(run_url=str(folder)))
    return launch_training(spark, task, _cluster(**exchange_settings(exchange), **options), tracker=tracker, body=body)


def _sum_of_ranks(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    reporter.resumed(0)
    print("hello from rank", collective.rank)
    total = collective.sum(np.array([collective.rank + 1.0]))
    reporter.progress(epoch=0, step=1, steps=1, loss=0.5, rows_per_second=10.0)
    reporter.metrics({"loss": 0.5}, 1)
    return {"sum": float(total[0]), "world_size": collective.world_size, "threads": task.threads}


def _own_place(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    return json.loads(json.dumps(collective.gather_objects([collective.rank, collective.local_rank, os.getpid()])))


def _environment(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    import torch  # noqa: F401

    return collective.gather_objects({"fusion": os.environ.get("HOROVOD_CYCLE_TIME"), "pid": os.getpid()})


def _rank_one_raises(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    for step in range(1, 100):
        collective.sum(np.array([1.0]))
        reporter.progress(epoch=0, step=step, steps=100, loss=0.0, rows_per_second=0.0)
        if collective.rank == 1 and step == 5:
            raise ZeroDivisionError("the user's own mistake")


def _rank_one_finds_the_disk_full(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    if collective.rank == 1:
        raise StorageError("/data is not usable: the disk is full; free some space")
    collective.sum(np.array([1.0]))


def _rank_one_is_killed(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    for step in range(1, 4):
        collective.sum(np.array([1.0]))
        reporter.progress(epoch=0, step=step, steps=100, loss=0.0, rows_per_second=0.0)
    if collective.rank == 1:
        reporter.event("step 3 is told")  # after the progress, on the same stream
        while not os.path.exists(os.path.join(task.training.run_url, "heard")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    collective.sum(np.array([1.0]))


class _LeavesAMark(SilentReporter):
    """Of the driver having heard an event."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def event(self, message: str) -> None:
        self._mark.touch()


def _rank_one_stands_still(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    collective.sum(np.array([1.0]))
    if collective.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    collective.sum(np.array([1.0]))


def _rank_one_waits_for_ever(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    collective.sum(np.array([1.0]))
    if collective.rank == 1:
        threading.Event().wait()
    collective.sum(np.array([1.0]))


def _until_stopped(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    reporter.event("going")
    while not collective.sum(np.array([float(stop())]))[0]:
        time.sleep(0.05)
    raise InterruptedRunError("stopped as asked; run again")


def _first_attempt(task: Any) -> bool:
    """Whether nobody has left the mark yet that this leaves."""
    try:
        os.close(os.open(os.path.join(task.training.run_url, "mark"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _rank_one_is_killed_once(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    collective.sum(np.array([1.0]))
    if collective.rank == 1 and _first_attempt(task):
        os.kill(os.getpid(), signal.SIGKILL)
    return float(collective.sum(np.array([1.0]))[0])


def _rank_one_is_preempted_once(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    if collective.rank == 1 and _first_attempt(task):
        os.kill(os.getpid(), signal.SIGTERM)
    if collective.sum(np.array([float(stop())]))[0]:
        raise InterruptedRunError("stopped after step 0; run the same command again to resume")
    return "done"


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_two_ranks_add_up_and_report_to_the_run_folder(spark, tmp_path: Path, exchange: str) -> None:
    settings = exchange_settings(exchange)
    result = _train(spark, tmp_path, _sum_of_ranks, exchange)
    assert result == {"sum": 3.0, "world_size": 2, "threads": 1}
    logs = [(tmp_path / "logs" / f"rank-{rank}.log").read_text().splitlines() for rank in (0, 1)]
    assert [log.pop() for log in logs] == ["hello from rank 0", "hello from rank 1"]
    in_memory = ["all ranks are on one host and exchange through its memory"] if settings["shared_memory"] else []
    assert [line.partition("train: ")[2] for line in (*logs[0], *logs[1])] == in_memory
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["collective"]) == ("finished", settings["collective"])
    assert [rank["rank"] for rank in status["ranks"]] == [0, 1]
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1]


class _EndsBeforeItIsHeard:
    """Spark's word of the ranks' end arrives before what they said last."""

    def run(self, call: RankCall, num_proc: int) -> list[Any]:
        self.ranks = [threading.Thread(target=self._speak, args=(call, rank)) for rank in range(num_proc)]
        for rank in self.ranks:
            rank.start()
        return ["done"] * num_proc

    def _speak(self, call: RankCall, rank: int) -> None:
        time.sleep(0.3 * (1 + rank))
        with ChannelReporter(call.channel, rank) as reporter:
            reporter.metrics({"loss": 0.5}, 1)
            reporter.log(f"last word of rank {rank}\n")

    def cancel(self) -> None: ...


def test_what_ranks_say_last_is_kept_though_their_end_is_known_before(
    spark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "_SETTLE_SECONDS", 60.0)
    record, launcher = RunRecord(str(tmp_path)), _EndsBeforeItIsHeard()
    call = RankCall(_sum_of_ranks, None, "torch", 10.0)
    assert Attempt(spark, launcher, 2, DeadlineConfig(), record).run(call) == ["done", "done"]
    for rank in launcher.ranks:
        rank.join()
    record.state("finished")
    for rank in (0, 1):
        assert (tmp_path / "logs" / f"rank-{rank}.log").read_text() == f"last word of rank {rank}\n"
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_ranks_of_one_host_have_different_local_ranks(spark, tmp_path: Path, exchange: str) -> None:
    places = _train(spark, tmp_path, _own_place, exchange)
    assert [place[:2] for place in places] == [[0, 0], [1, 1]]
    assert places[0][2] != places[1][2]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_reused_workers_get_their_environment_and_signal_handlers_back(spark, tmp_path: Path, exchange: str) -> None:
    _train(spark, tmp_path, _environment, exchange)

    def look(_: int) -> list[Any]:
        return [
            sorted(name for name in os.environ if name.startswith("HOROVOD")),
            signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            [thread.name for thread in threading.enumerate() if thread.name in ("reporter", "parent-watch")],
        ]

    for found in spark.sparkContext.parallelize([0, 1], 2).map(look).collect():
        assert found == [[], True, []]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_failing_rank_ends_all_and_its_traceback_is_the_error(spark, tmp_path: Path, exchange: str) -> None:
    started = time.monotonic()
    with pytest.raises(
        RankFailedError, match=r"rank 1 on .* after step 5 or later: ZeroDivisionError: the user's own"
    ) as caught:
        _train(spark, tmp_path, _rank_one_raises, exchange)
    assert time.monotonic() - started < 30
    assert "_rank_one_raises" in (caught.value.detail or "")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"


def test_errors_of_this_package_keep_their_kind(spark, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"disk is full.*\(rank 1 on "):
        _train(spark, tmp_path, _rank_one_finds_the_disk_full)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_killed_rank_is_named_and_the_run_can_be_resumed(spark, tmp_path: Path, exchange: str) -> None:
    with pytest.raises(InterruptedRunError, match=r"rank 1 on .* was lost at step 3"):
        _train(spark, tmp_path, _rank_one_is_killed, exchange, _LeavesAMark(tmp_path / "heard"), max_failures=0)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_training_restarts_by_itself_after_a_kill_and_after_a_preemption(spark, tmp_path: Path, exchange: str) -> None:
    for body, budget in ((_rank_one_is_killed_once, "max_preemptions"), (_rank_one_is_preempted_once, "max_failures")):
        folder = tmp_path / budget
        folder.mkdir()
        assert _train(spark, folder, body, exchange, **{budget: 0}) in (2.0, "done")
        status = json.loads((folder / "status.json").read_text())
        assert (status["state"], status["restarts"]) == ("finished", 1)
        assert "restarting from the last checkpoint on 2 ranks" in status["last_event"]


@needs_horovod
@pytest.mark.slow
def test_the_horovod_launcher_gives_the_same_results_and_errors_and_leaves_signal_handlers_alone(
    spark, tmp_path: Path
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert _train(spark, tmp_path, _sum_of_ranks, launcher="horovod")["sum"] == 3.0
    with pytest.raises(RankFailedError, match=r"rank 1 on .* after step 5 or later: ZeroDivisionError: the user's own"):
        _train(spark, tmp_path, _rank_one_raises, launcher="horovod")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_stopped_process_is_found_by_its_silence_and_named(spark, tmp_path: Path, exchange: str) -> None:
    deadlines = DeadlineConfig(silence=8)
    with pytest.raises(InterruptedRunError, match=r"^rank 1 on \S+ \(pid \d+\) gave no sign of life"):
        _train(spark, tmp_path, _rank_one_stands_still, exchange, deadlines=deadlines, max_failures=0)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_rank_that_waits_for_ever_is_found_by_the_step_deadline_and_named_with_its_place(
    spark, tmp_path: Path, exchange: str
) -> None:
    with pytest.raises(InterruptedRunError, match=r"held up by rank 1 on .*_rank_one_waits_for_ever"):
        _train(spark, tmp_path, _rank_one_waits_for_ever, exchange, deadlines=DeadlineConfig(step=4), max_failures=0)


def test_more_ranks_than_slots_are_refused_at_once(spark, tmp_path: Path) -> None:
    task = TrainingTask("data", "id", ModelConfig(name="linear"), TrainingConfig(run_url=str(tmp_path)))
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"cluster.num_proc is 3; expected at most 2"):
        launch_training(spark, task, ClusterConfig(num_proc=3), body=_sum_of_ranks)
    assert time.monotonic() - started < 10


def test_in_local_mode_a_rank_of_several_cores_has_as_many_threads(spark, tmp_path: Path) -> None:
    task = TrainingTask("data", "id", ModelConfig(name="linear"), TrainingConfig(run_url=str(tmp_path)))
    one = launch_training(spark, task, ClusterConfig(cores_per_rank="executor"), body=_sum_of_ranks)
    assert one == {"sum": 1.0, "world_size": 1, "threads": 2}
    with pytest.raises(ConfigError, match=r"num_proc is 2; expected at most 1 \(tasks of cluster.cores_per_rank=2"):
        launch_training(spark, task, _cluster(cores_per_rank=2), body=_sum_of_ranks)


class _CtrlC(SilentReporter):
    def event(self, message: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_ctrl_c_lets_the_ranks_save_and_stops_the_job(spark, tmp_path: Path, exchange: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(spark, tmp_path, _until_stopped, exchange, _CtrlC())
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"
    assert ends_all_jobs(spark)


def test_it_works_from_a_thread(spark, tmp_path: Path) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(_train(spark, tmp_path, _sum_of_ranks)))
    thread.start()
    thread.join(60)
    assert results[0]["sum"] == 3.0


def test_one_rank_in_this_process_needs_no_spark(tmp_path: Path) -> None:
    assert _train(None, tmp_path, _sum_of_ranks, launcher="in_process")["world_size"] == 1
    with pytest.raises(RankFailedError, match="ZeroDivisionError"):
        _train(None, tmp_path, lambda *_: 1 / 0, launcher="in_process")


def test_heartbeats_come_often_enough_for_the_shortest_deadline_allowed() -> None:
    assert reporter_module.HEARTBEAT_SECONDS < 2
