"""Ranks that are told to end save first: how long they get, who tells them, and who does not wait."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark import cloudpickle

from pipeline.config.training import ClusterConfig, DeadlineConfig, ModelConfig, TrainingConfig
from pipeline.errors import InterruptedRunError
from pipeline.launch import attempt as attempt_module
from pipeline.launch import launch_training
from pipeline.launch.attempt import Attempt, OutOfTimeError
from pipeline.launch.environment import plain_interrupts
from pipeline.launch.rank import RankCall
from pipeline.launch.record import RunRecord
from pipeline.task import SilentReporter, TrainingTask
from tests.spark_jobs import ends_all_jobs

pytestmark = pytest.mark.distributed


@pytest.fixture(autouse=True)
def bodies_travel_by_value() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def _train(
    spark: Any, folder: Path, body: Any, tracker: Any = None, max_preemptions: int = 20, **deadlines: float
) -> Any:
    task = TrainingTask("data", "id", ModelConfig(name="linear"), TrainingConfig(run_url=str(folder)))
    options: dict[str, Any] = {"collective": "torch", "max_preemptions": max_preemptions, "deadlines": deadlines}
    cluster = ClusterConfig(master="local[2]", num_proc=2, **options)
    return launch_training(spark, task, cluster, tracker=tracker, body=body)


def _all_go(collective: Any, reporter: Any) -> None:
    collective.barrier()
    reporter.event("going")  # that this rank has started is said before, on the same stream


def _saves_when_told(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    _all_go(collective, reporter)
    while not stop():
        time.sleep(0.05)
    time.sleep(1.0)
    Path(task.training.run_url, f"saved-by-{collective.rank}").touch()
    raise InterruptedRunError("stopped as asked; run again")


def _does_not_listen(task: Any, collective: Any, reporter: Any, stop: Any) -> Any:
    _all_go(collective, reporter)
    while True:
        time.sleep(0.05)


class _CtrlC(SilentReporter):
    """Presses it when both ranks are at work."""

    def __init__(self) -> None:
        self.pressed = 0.0
        self._going = 0

    def event(self, message: str) -> None:
        self._going += message == "going"
        if self._going == 2 and not self.pressed:
            self.pressed = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)


class _CtrlCAgain(logging.Handler):
    """Presses it when the driver says that it waits for ranks to save."""

    def emit(self, record: logging.LogRecord) -> None:
        if "stopping; the ranks have up to" in record.getMessage():
            os.kill(os.getpid(), signal.SIGINT)


def _saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("saved-by-*"))


def test_ranks_save_before_they_end_and_the_driver_says_what_it_waits_for(
    spark: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(spark, tmp_path, _saves_when_told, _CtrlC(), save=30)
    assert _saved(tmp_path) == ["saved-by-0", "saved-by-1"]
    assert "the ranks have up to 30 s (cluster.deadlines.save) to save their state" in caplog.text
    assert "did not save in time" not in caplog.text


def test_ranks_that_do_not_save_in_time_are_ended_and_that_is_said(
    spark: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = _CtrlC()
    with pytest.raises(KeyboardInterrupt):
        _train(spark, tmp_path, _does_not_listen, keys, save=1.5)
    assert 1.5 < time.monotonic() - keys.pressed < 15
    assert "did not save in time; the steps since the last checkpoint are lost" in caplog.text


def test_a_second_ctrl_c_does_not_wait_for_ranks_to_save(spark: Any, tmp_path: Path) -> None:
    keys, again = _CtrlC(), _CtrlCAgain()
    attempt_module.logger.addHandler(again)
    try:
        with pytest.raises(KeyboardInterrupt):
            _train(spark, tmp_path, _does_not_listen, keys, save=100)
    finally:
        attempt_module.logger.removeHandler(again)
    assert time.monotonic() - keys.pressed < 15
    assert ends_all_jobs(spark)


def test_a_training_that_has_no_more_time_saves_before_it_ends(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = Attempt._refuse_more_time

    def an_hour_after_all_have_started(attempt: Attempt, now: float) -> None:
        refuse(attempt, now + 3600 * attempt._watch.all_started())

    monkeypatch.setattr(Attempt, "_refuse_more_time", an_hour_after_all_have_started)
    with pytest.raises(InterruptedRunError, match=r"training has taken \d+ s; expected at most .*stage=3600 s"):
        _train(spark, tmp_path, _saves_when_told, stage=3600)
    assert _saved(tmp_path) == ["saved-by-0", "saved-by-1"]


def test_ranks_save_when_an_executor_is_about_to_go_and_one_that_was_leaving_before_they_came_is_no_news(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([{"3": "old"}, {"3": "old"}])
    monkeypatch.setattr(attempt_module, "leaving_executors", lambda _: next(said, {"3": "old", "4": "new"}))
    with pytest.raises(InterruptedRunError, match=r"^executor 4 on new will be taken away .*\n.*max_preemptions=0"):
        _train(spark, tmp_path, _saves_when_told, max_preemptions=0)
    assert _saved(tmp_path) == ["saved-by-0", "saved-by-1"]


class _NeverStarts:
    """A launcher whose ranks do not come to life."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def run(self, call: RankCall, num_proc: int) -> list[Any]:
        self._ended.wait(60)
        return []

    def cancel(self) -> None:
        self._ended.set()


def test_the_time_of_a_training_counts_over_all_attempts_and_ranks_that_did_not_start_have_nothing_to_save(
    spark: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    deadlines = DeadlineConfig(stage=50, save=30)
    attempt = Attempt(spark, _NeverStarts(), 2, deadlines, RunRecord(str(tmp_path)), training_began=began - 51)
    with pytest.raises(OutOfTimeError, match="training has taken 51 s"):
        attempt.run(RankCall(_saves_when_told, None, "torch", 10.0))
    assert time.monotonic() - began < 10
    assert "to save their state" not in caplog.text


def test_pysparks_handler_of_ctrl_c_which_would_cancel_the_ranks_before_they_save_is_put_aside() -> None:
    def cancel_all_jobs(*_: Any) -> None:
        raise AssertionError("jobs were cancelled")

    cancel_all_jobs.__module__ = "pyspark.context"
    before = signal.signal(signal.SIGINT, cancel_all_jobs)
    try:
        with pytest.raises(KeyboardInterrupt), plain_interrupts():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is cancel_all_jobs
    finally:
        signal.signal(signal.SIGINT, before)
