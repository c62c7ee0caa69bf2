"""The channel between ranks and driver: authenticated, never in training's way; and the judgement on what it says."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections import Counter
from typing import Any

import pytest

from pipeline.config.training import DeadlineConfig
from pipeline.errors import InterruptedRunError, LostPeersError, RankFailedError, ServiceError, StorageError
from pipeline.launch import rank as rank_module
from pipeline.launch.channel import ChannelServer, Message
from pipeline.launch.rank import RankCall, run_rank
from pipeline.launch.reporter import ChannelReporter, describe
from pipeline.launch.resources import Place
from pipeline.launch.watch import Watch
from pipeline.training import collective
from pipeline.training.collective import SoloCollective


def _received(channel: ChannelServer, kind: str, seconds: float = 5.0) -> Message:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = channel.messages.get(timeout=seconds)
        if message.kind == kind:
            return message
    raise AssertionError(f"no {kind} came")


def test_what_a_rank_reports_arrives_in_order_and_ends_with_bye() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        with ChannelReporter(channel.address, 3) as reporter:
            reporter.resumed(7)
            reporter.metrics({"loss": 0.5}, 8)
            reporter.event("saved")
        kinds = []
        while not kinds or kinds[-1] != "bye":
            message = channel.messages.get(timeout=5)
            assert message.rank == 3
            kinds.append(message.kind)
        assert kinds == ["hello", "resumed", "metrics", "event", "bye"]


def test_however_much_a_rank_writes_before_it_fails_its_failure_arrives_and_its_thread_ends() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        with ChannelReporter(channel.address, 0) as reporter:
            for number in range(60_000):
                reporter.log(f"line {number}\n")
            reporter.failure(ValueError("the reason"))
        kinds = Counter(message.kind for message in _messages(channel))
    assert (kinds["failure"], kinds["bye"]) == (1, 1)
    assert kinds["log"] < 60_000, "the queue was full"
    assert not [thread for thread in threading.enumerate() if thread.name == "reporter"]


def test_progress_is_thinned_and_its_newest_value_arrives() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel, ChannelReporter(channel.address, 0) as reporter:
        for step in range(1000):
            reporter.progress(epoch=0, step=step, steps=1000, loss=0.1, rows_per_second=1.0)
        steps = [_received(channel, "progress").body["step"]]
        while steps[-1] < 999:
            steps.append(_received(channel, "progress").body["step"])
        assert len(steps) < 100


def _messages(channel: ChannelServer) -> list[Message]:
    """All until the end of the stream."""
    messages = [channel.messages.get(timeout=5)]
    while messages[-1].kind not in ("bye", "lost"):
        messages.append(channel.messages.get(timeout=5))
    return messages


def test_an_error_of_any_length_arrives_whole_at_both_ends() -> None:
    try:
        raise ValueError("begins " + "ü" * 1_500_000 + " ends")
    except ValueError as error:
        failure = error
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        with ChannelReporter(channel.address, 0) as reporter:
            reporter.log("é" * 400_000 + "\udc80\n")
            reporter.failure(failure)
        hello, log, failed, bye = _messages(channel)
    assert [message.kind for message in (hello, log, failed, bye)] == ["hello", "log", "failure", "bye"]
    assert log.body["text"].startswith("éé")
    assert log.body["text"].endswith("é?\n")
    assert failed.body["message"].startswith("begins üü")
    assert failed.body["message"].endswith("üü ends")
    assert failed.body["traceback"].startswith("Traceback (most recent call last)")
    assert failed.body["traceback"].endswith(" ends\n")


def test_a_message_for_which_there_is_no_room_even_so_is_left_out() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        with ChannelReporter(channel.address, 0) as reporter:
            reporter.metrics({f"metric {number}": 0.5 for number in range(100_000)}, 1)
            reporter.event("goes on")
        assert [message.kind for message in _messages(channel)] == ["hello", "event", "bye"]


def test_an_idle_rank_gives_a_sign_of_life_and_tells_where_it_is() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel, ChannelReporter(channel.address, 0):
        assert "test_an_idle_rank" in _received(channel, "heartbeat").body["where"]


def test_the_driver_can_ask_the_ranks_to_stop() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel, ChannelReporter(channel.address, 0) as reporter:
        _received(channel, "hello")
        assert not reporter.stopped
        channel.ask_to_stop()
        deadline = time.monotonic() + 5
        while not reporter.stopped and time.monotonic() < deadline:
            time.sleep(0.01)
        assert reporter.stopped


def test_who_does_not_know_the_token_is_refused() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        stranger = dataclasses.replace(channel.address, token="guess")
        with pytest.raises(ServiceError, match="did not accept"), ChannelReporter(stranger, 0):
            pass
        with socket.create_connection(("127.0.0.1", channel.address.port)) as connection:
            connection.sendall(b"\x80\x04 this is not json\n")
            assert b"challenge" in connection.recv(1000)
            assert connection.recv(1000) == b""
        assert channel.messages.empty()


def test_the_token_never_shows() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        assert channel.address.token not in repr(channel.address)


def test_a_driver_out_of_reach_is_an_error_that_names_address_and_setting(free_port: int) -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        nowhere = dataclasses.replace(channel.address, port=free_port)
    with pytest.raises(ServiceError, match=rf"127.0.0.1:{free_port}.*spark.driver.host"), ChannelReporter(nowhere, 0):
        pass


def test_reporting_goes_on_over_a_new_connection_when_one_breaks() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel, ChannelReporter(channel.address, 0) as reporter:
        _received(channel, "hello")
        channel._server.disconnect()
        _received(channel, "lost")
        reporter.event("one")
        _received(channel, "hello")


def test_a_driver_that_is_gone_neither_blocks_nor_fails_the_rank() -> None:
    channel = ChannelServer("127.0.0.1", "127.0.0.1")
    with channel:
        reporter = ChannelReporter(channel.address, 0).__enter__()
    started = time.monotonic()
    for step in range(20_000):
        reporter.metrics({"loss": 1.0}, step)
    reporter.__exit__()
    assert time.monotonic() - started < 30


def test_a_process_that_ends_without_bye_is_lost() -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as channel:
        reporter = ChannelReporter(channel.address, 1).__enter__()
        _received(channel, "hello")
        connection = reporter._connection
        assert connection is not None
        connection.shutdown(socket.SHUT_RDWR)
        assert _received(channel, "lost").rank == 1
        reporter.__exit__()


# --- the watch -----------------------------------------------------------------------------------------------


def _watch(**deadlines: Any) -> Watch:
    watch = Watch(2, DeadlineConfig(**deadlines), begun=0.0)
    for rank in (0, 1):
        watch.note(Message(rank, "hello", {"host": f"h{rank}", "pid": 10 + rank}), 0.0)
        watch.note(Message(rank, "started"), 0.0)
    return watch


def _fail(watch: Watch, rank: int, error: BaseException) -> None:
    watch.note(Message(rank, "failure", json.loads(json.dumps({**describe(error), "step": 4}))), 1.0)


def _collective_failure() -> LostPeersError:
    return LostPeersError("the collective has failed because another rank is gone")


class _HorovodError(RuntimeError):
    """As Horovod raises it in a user's own call."""

    __module__ = "horovod.common.exceptions"


def test_the_first_cause_is_the_error_even_if_its_consequences_arrive_first() -> None:
    watch = _watch()
    _fail(watch, 0, _collective_failure())
    assert not watch.failed()
    _fail(watch, 1, ValueError("bad label"))
    assert watch.failed()
    error = watch.verdict(None)
    assert isinstance(error, RankFailedError)
    assert str(error).startswith("rank 1 on h1 failed after step 4 or later: ValueError: bad label")


@pytest.mark.parametrize(
    ("error", "secondary"),
    [
        (_HorovodError("the operation was aborted"), True),
        (_HorovodError("Horovod has not been initialized; use hvd.init()."), False),
        (RuntimeError("my Horovod settings file is missing"), False),
        (_collective_failure(), True),
        (StorageError("disk full"), False),
    ],
)
def test_whose_failure_it_is_depends_on_the_kind_of_error_and_not_on_its_words(
    error: Exception, secondary: bool
) -> None:
    assert describe(error)["secondary"] == secondary


def test_of_a_long_message_the_error_shows_the_beginning() -> None:
    watch = _watch()
    _fail(watch, 1, ValueError("bad " + "x" * 5000))
    error = watch.verdict(None)
    assert len(str(error)) < 1200
    assert len(error.detail or "") > 5000


def test_ranks_that_horovod_does_not_bring_together_blame_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("Horovod initialization failed. Please check log messages above")

    monkeypatch.setattr(collective, "HorovodCollective", fail)
    with pytest.raises(LostPeersError, match=r"has not brought the ranks together \(Horovod initialization failed"):
        rank_module._join_horovod()


def test_consequences_alone_point_to_the_rank_that_is_gone() -> None:
    watch = _watch()
    _fail(watch, 0, _collective_failure())
    watch.note(Message(0, "bye"), 1.0)
    watch.note(Message(1, "lost"), 1.0)
    error = watch.verdict(None)
    assert isinstance(error, InterruptedRunError)
    assert str(error).startswith("rank 1 on h1 (pid 11) was lost")


def test_of_ranks_that_are_gone_the_first_is_named_not_one_that_is_about_to_follow() -> None:
    watch = _watch()
    watch.note(Message(1, "lost"), 1.0)
    assert str(watch.verdict(None)).startswith("rank 1 on h1 (pid 11) was lost")
    watch.note(Message(0, "lost"), 2.0)
    for error in (watch.overdue(10.0), watch.verdict(None)):
        assert str(error).startswith("rank 1 on h1 (pid 11) was lost")


def test_errors_of_this_package_keep_kind_and_code() -> None:
    watch = _watch()
    _fail(watch, 1, StorageError("/x is full", detail="more"))
    error = watch.verdict(None)
    assert isinstance(error, StorageError)
    assert (error.offences, error.detail) == (("/x is full (rank 1 on h1)",), "more")


def test_ranks_that_do_not_come_are_named_after_the_launch_deadline() -> None:
    watch = Watch(3, DeadlineConfig(launch=10), begun=0.0)
    watch.note(Message(1, "hello", {"host": "h", "pid": 1}), 1.0)
    assert watch.overdue(9.0) is None
    assert "ranks [0, 2] have not reported" in str(watch.overdue(11.0))


def test_silence_is_blamed_on_the_silent_rank() -> None:
    watch = _watch(silence=5)
    watch.note(Message(0, "heartbeat", {"where": ""}), 5.0)
    assert watch.overdue(4.0) is None
    assert str(watch.overdue(6.0)).startswith("rank 1 on h1 (pid 11) gave no sign of life for 6 s")


def test_silence_counts_from_the_first_word_on_not_only_after_the_start() -> None:
    watch = Watch(2, DeadlineConfig(silence=5, launch=300), begun=0.0)
    for rank in (0, 1):
        watch.note(Message(rank, "hello", {"host": f"h{rank}", "pid": 10 + rank}), 0.0)
    watch.note(Message(0, "started"), 5.0)
    assert str(watch.overdue(6.0)).startswith("rank 1 on h1 (pid 11) gave no sign of life for 6 s")


def test_a_standstill_is_blamed_on_the_rank_that_is_not_in_a_collective() -> None:
    watch = _watch(step=5, silence=100)
    watch.note(Message(0, "heartbeat", {"where": "horovod.torch.mpi_ops:1 synchronize"}), 6.0)
    watch.note(Message(1, "heartbeat", {"where": "user:7 forward"}), 6.0)
    assert "held up by rank 1 on h1 (pid 11), in user:7 forward" in str(watch.overdue(6.0))
    watch.note(Message(0, "progress", {"step": 9}), 6.0)
    assert watch.overdue(6.5) is None


def test_a_lost_rank_may_come_back_within_seconds() -> None:
    watch = _watch()
    watch.note(Message(1, "lost"), 1.0)
    assert watch.overdue(3.0) is None
    watch.note(Message(1, "hello", {"host": "h1", "pid": 11}), 3.5)
    assert watch.overdue(5.0) is None
    watch.note(Message(1, "lost"), 6.0)
    assert isinstance(watch.overdue(10.0), InterruptedRunError)


def test_ranks_are_heard_out_when_each_has_said_goodbye_or_is_gone() -> None:
    watch = Watch(2, DeadlineConfig(), begun=0.0)
    watch.note(Message(0, "hello", {"host": "h0", "pid": 10}), 0.0)
    watch.note(Message(0, "bye"), 1.0)
    assert not watch.heard_out()
    watch.note(Message(1, "hello", {"host": "h1", "pid": 11}), 1.0)
    assert not watch.heard_out()
    watch.note(Message(1, "lost"), 2.0)
    assert watch.heard_out()


def test_when_no_rank_could_speak_the_python_part_of_sparks_reason_is_shown() -> None:
    reason = (
        "org.apache.spark.SparkException: x\nTraceback (most recent call last):\n  File\nImportError: no\n\tat java"
    )
    error = Watch(1, DeadlineConfig(), 0.0).verdict(Exception(reason))
    assert isinstance(error, RankFailedError)
    assert error.detail == "Traceback (most recent call last):\n  File\nImportError: no"


def _who_adds_up(task: Any, collective: Any, reporter: Any, stop: Any) -> str:
    return type(collective).__name__


@pytest.mark.parametrize("collective", ["horovod", "torch"])
def test_a_rank_alone_starts_no_collective_library(collective: Any) -> None:
    with ChannelServer("127.0.0.1", "127.0.0.1") as server:
        call = RankCall(_who_adds_up, None, collective, 60, server.address)
        assert run_rank(call, Place(0, 1, 0, 1, 0, 1), "127.0.0.1") == "SoloCollective"


def _finds_a_bad_label(task: Any, collective: Any, reporter: Any, stop: Any) -> None:
    raise ValueError("bad label")


def test_a_rank_says_why_it_fails_before_the_others_can_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []

    class Collective(SoloCollective):
        def close(self) -> None:
            heard.append(_received(server, "failure"))
            raise ConnectionError("the others are gone")

    monkeypatch.setattr(rank_module, "_alone", Collective)
    with ChannelServer("127.0.0.1", "127.0.0.1") as server:
        call = RankCall(_finds_a_bad_label, None, "torch", 60, server.address, shared_memory=False)
        with pytest.raises(ConnectionError):
            run_rank(call, Place(0, 1, 0, 1, 0, 1), "127.0.0.1")
        assert heard[0].body["message"] == "bad label"
        assert server.messages.get(timeout=5).kind == "bye", "one failure of one rank"
