"""DRIVER. One attempt to run all ranks to their end: start them, listen to them, stop them when something is wrong."""

from __future__ import annotations

import contextlib
import queue
import time
from dataclasses import replace
from typing import Any, Protocol

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from pipeline.config.training import DeadlineConfig
from pipeline.errors import PipelineError, RankFailedError
from pipeline.launch.channel import ChannelServer, Message
from pipeline.launch.cluster import driver_addresses
from pipeline.launch.rank import RankCall
from pipeline.launch.record import RunRecord
from pipeline.launch.watch import Watch

_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 2.0
_CANCEL_SECONDS = 30.0
_SAVE_SECONDS = 10.0


class Launcher(Protocol):
    """How ranks come to life."""

    def run(self, call: RankCall, num_proc: int) -> list[Any]:
        """Run all ranks to their end; their results by rank."""

    def cancel(self) -> None:
        """Make `run` end soon; may be called from another thread, and when nothing runs."""


class Attempt:
    """Runs the launcher in a thread, so that the calling one can listen, judge and be interrupted."""

    def __init__(
        self, spark: SparkSession, launcher: Launcher, num_proc: int, deadlines: DeadlineConfig, record: RunRecord
    ) -> None:
        self._spark = spark
        self._launcher = launcher
        self._num_proc = num_proc
        self._record = record
        self._watch = Watch(num_proc, deadlines, time.monotonic())
        self._results: list[Any] | None = None
        self._error: BaseException | None = None

    def run(self, call: RankCall) -> list[Any]:
        """The results of all ranks, by rank.

        Raises:
            PipelineError: the first cause of the end: a rank's own error, a lost rank, a missed deadline.
        """
        with ChannelServer(*driver_addresses(self._spark)) as channel:
            call = replace(call, channel=channel.address)
            thread = InheritableThread(target=self._launch, args=(call,), name="launch", daemon=True)
            thread.start()
            try:
                self._follow(thread, channel)
            except BaseException as error:
                self._stop(thread, channel, patient=not isinstance(error, PipelineError))
                raise
            finally:
                self._settle(channel)
        if self._results is None:
            raise self._watch.verdict(self._error) from self._error
        return self._results

    def _launch(self, call: RankCall) -> None:
        try:
            self._results = self._launcher.run(call, self._num_proc)
        except BaseException as error:
            self._error = error

    def _follow(self, thread: InheritableThread, channel: ChannelServer) -> None:
        """Until the launcher's thread has ended."""
        ending: float | None = None
        while thread.is_alive():
            self._take(channel, _POLL_SECONDS)
            now = time.monotonic()
            self._record.ranks(self._watch.signs_of_life(now))
            if (late := self._watch.overdue(now)) is not None:
                raise late
            if self._watch.failed():
                ending = ending or now
                if now - ending > _SETTLE_SECONDS:
                    self._launcher.cancel()
                    thread.join(_CANCEL_SECONDS)
                    return

    def _stop(self, thread: InheritableThread, channel: ChannelServer, patient: bool) -> None:
        """End the ranks; when the user asked for it, give them some seconds to save their state first."""
        if patient:
            channel.ask_to_stop()
            deadline = time.monotonic() + _SAVE_SECONDS
            while thread.is_alive() and time.monotonic() < deadline:
                self._take(channel, _POLL_SECONDS)
        with contextlib.suppress(Exception):
            self._launcher.cancel()
        thread.join(_CANCEL_SECONDS)

    def _settle(self, channel: ChannelServer) -> None:
        """Wait a moment for the last words of ranks whose end, good or bad, Spark has reported first."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not self._watch.heard_out() and time.monotonic() < deadline:
            self._take(channel, 0.1)
        while not channel.messages.empty():
            self._take(channel, 0)

    def _take(self, channel: ChannelServer, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            message = channel.messages.get(timeout=seconds) if seconds else channel.messages.get_nowait()
            self._watch.note(message, time.monotonic())
            self._forward(message)

    def _forward(self, message: Message) -> None:
        """Pass on to the run's record what it keeps: of what all ranks know, rank 0's word."""
        body = dict(message.body)
        if message.kind == "progress" and message.rank == 0:
            self._record.progress(**body)
        elif message.kind == "metrics" and message.rank == 0:
            self._record.metrics(body["values"], body["step"])
        elif message.kind == "resumed" and message.rank == 0:
            self._record.resumed(body["step"])
        elif message.kind == "log":
            self._record.log(message.rank, body["text"])
        elif message.kind == "event":
            self._record.event(body["message"])


def same_on_all_ranks(results: list[Any]) -> Any:
    """The result, which all ranks must agree on.

    Raises:
        RankFailedError: they do not: a bug of ours.
    """
    odd = [rank for rank, result in enumerate(results) if result != results[0]]
    if odd:
        raise RankFailedError(
            f"the results of ranks {odd} differ from rank 0's; expected the same on all ranks; please report this bug",
            detail="\n".join(f"rank {rank}: {result}" for rank, result in enumerate(results)),
        )
    return results[0]
