"""One attempt to run all ranks, without ranks: whom the driver believes, and how it ends what has just begun."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.training import DeadlineConfig
from pipeline.errors import InterruptedRunError, RankFailedError
from pipeline.launch import attempt as attempt_module
from pipeline.launch.attempt import Attempt, same_on_all_ranks
from pipeline.launch.channel import Message
from pipeline.task import TrainingResult

_SILENCE = 30.0


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class _Messages(queue.SimpleQueue[Message]):
    """Nobody really waits for a message."""

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        return super().get(block=False)


class _Rounds:
    """A launcher's thread that lives for so many rounds."""

    def __init__(self, count: int) -> None:
        self._left = count

    def is_alive(self) -> bool:
        self._left -= 1
        return self._left >= 0


class _Record:
    """Of a run folder; showing the ranks takes as long as the test says."""

    def __init__(self, show: Callable[[], None] = lambda: None) -> None:
        self._show = show
        self.shown: list[Any] = []

    def ranks(self, ranks: list[Any]) -> None:
        self.shown.append(ranks)
        self._show()

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(attempt_module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def no_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "leaving_executors", lambda _: {})


def _attempt(record: Any, launcher: Any = None) -> Attempt:
    return Attempt(SimpleNamespace(), launcher, 2, DeadlineConfig(silence=_SILENCE), record)  # type: ignore[arg-type]


def _channel(*kinds: str) -> Any:
    channel = SimpleNamespace(messages=_Messages())
    for kind in kinds:
        _all_say(channel, kind)
    return channel


def _all_say(channel: Any, kind: str, **body: Any) -> None:
    for rank in (0, 1):
        channel.messages.put(Message(rank, kind, {"host": f"h{rank}", "pid": rank, **body}))


def test_ranks_that_spoke_while_a_slow_store_held_the_driver_up_are_not_silent(clock: _Clock) -> None:
    def write_slowly() -> None:
        clock.now += 2 * _SILENCE
        _all_say(channel, "heartbeat")

    channel = _channel("hello", "started")
    _attempt(_Record(write_slowly))._follow(_Rounds(5), channel)  # type: ignore[arg-type]


def test_a_driver_that_was_suspended_blames_nobody_for_it(clock: _Clock) -> None:
    pauses = iter([2 * _SILENCE])

    def be_suspended_once() -> None:
        clock.now += next(pauses, 0.0)

    _attempt(_Record(be_suspended_once))._follow(_Rounds(5), _channel("hello", "started"))  # type: ignore[arg-type]


def test_whoever_is_silent_while_the_driver_listens_is_found(clock: _Clock) -> None:
    def let_time_pass() -> None:
        clock.now += 1.0

    with pytest.raises(InterruptedRunError, match="gave no sign of life"):
        _attempt(_Record(let_time_pass))._follow(_Rounds(50), _channel("hello", "started"))  # type: ignore[arg-type]


def test_what_ranks_say_last_is_shown_of_them(clock: _Clock) -> None:
    record, channel = _Record(), _channel("hello", "started")
    _all_say(channel, "metrics", step=7, values={})
    _all_say(channel, "bye")
    _attempt(record)._settle(channel)
    assert [rank["step"] for rank in record.shown[-1]] == [7, 7]


class _SubmitsLate:
    """Its job is there only after it was cancelled for the first time."""

    def __init__(self) -> None:
        self.submitted, self.cancelled = threading.Event(), threading.Event()

    def cancel(self) -> None:
        (self.cancelled if self.submitted.is_set() else self.submitted).set()

    def run(self) -> None:
        assert self.submitted.wait(20)
        self.cancelled.wait(20)


def test_a_job_that_is_submitted_after_it_was_cancelled_is_cancelled_again() -> None:
    launcher = _SubmitsLate()
    thread = threading.Thread(target=launcher.run)
    thread.start()
    _attempt(_Record(), launcher)._stop(thread, _channel(), patient=False)  # type: ignore[arg-type]
    assert launcher.cancelled.is_set()
    thread.join()


def _result(auc: float, steps: int = 4) -> TrainingResult:
    metrics = {"roc_auc": auc, "loss": 0.5}
    return TrainingResult(steps, epochs=1, best_epoch=1, best_metrics=metrics, best_checkpoint="c", rows=40)


def test_ranks_agree_on_a_metric_that_is_not_defined() -> None:
    results = [_result(float("nan")), _result(float("nan"))]
    assert same_on_all_ranks(results) is results[0]


@pytest.mark.parametrize("other", [_result(0.5), _result(math.nan, steps=5)])
def test_ranks_whose_results_differ_are_named(other: TrainingResult) -> None:
    with pytest.raises(RankFailedError, match=r"the results of ranks \[1\] differ from rank 0's"):
        same_on_all_ranks([_result(math.nan), other])
