"""DRIVER. One attempt to run all ranks to their end: start them, listen to them, stop them when something is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import queue
import time
from collections.abc import Mapping
from typing import Any, Protocol

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from pipeline.config.training import DeadlineConfig
from pipeline.errors import InterruptedRunError, PipelineError, RankFailedError
from pipeline.launch.channel import ChannelServer, Message
from pipeline.launch.cluster import driver_addresses, leaving_executors
from pipeline.launch.environment import plain_interrupts
from pipeline.launch.job import end_thread
from pipeline.launch.rank import RankCall
from pipeline.launch.record import RunRecord
from pipeline.launch.watch import LostRanksError, Watch

_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 2.0
_CANCEL_SECONDS = 30.0
_LEAVING_SECONDS = 2.0
_HELD_UP_SECONDS = 2.0

logger = logging.getLogger(__name__)


class OutOfTimeError(InterruptedRunError):
    """Training as a whole has taken longer than it may; its ranks save before they end."""


class PreemptionError(LostRanksError):
    """Executors are about to be taken away; their ranks save before they go."""

    preempted = True


class Launcher(Protocol):
    """How ranks come to life."""

    def run(self, call: RankCall, num_proc: int) -> list[Any]:
        """Run all ranks to their end; their results by rank."""

    def cancel(self) -> None:
        """Make `run` end soon; may be called from another thread, and when nothing runs."""


class Attempt:
    """Runs the launcher in a thread, so that the calling one can listen, judge and be interrupted.

    Args:
        spark: the session.
        launcher: brings the ranks to life.
        num_proc: how many.
        deadlines: of this attempt, and of the training as a whole.
        record: what is kept of it.
        training_began: when the first attempt did, on the monotonic clock; by default now.
    """

    def __init__(
        self,
        spark: SparkSession,
        launcher: Launcher,
        num_proc: int,
        deadlines: DeadlineConfig,
        record: RunRecord,
        training_began: float | None = None,
    ) -> None:
        self._spark = spark
        self._launcher = launcher
        self._num_proc = num_proc
        self._deadlines = deadlines
        self._record = record
        now = time.monotonic()
        self._training_began = now if training_began is None else training_began
        self._watch = Watch(num_proc, deadlines, now)
        self._left = leaving_executors(spark)  # Spark gives them no ranks any more
        self._look_again = now
        self._results: list[Any] | None = None
        self._error: BaseException | None = None

    def run(self, call: RankCall) -> list[Any]:
        """The results of all ranks, by rank.

        Raises:
            PipelineError: the first cause of the end: a rank's own error, a lost rank, a missed deadline.
        """
        with plain_interrupts(), ChannelServer(*driver_addresses(self._spark)) as channel:
            call = dataclasses.replace(call, channel=channel.address)
            thread = InheritableThread(target=self._launch, args=(call,), name="launch", daemon=True)
            thread.start()
            try:
                self._follow(thread, channel)
            except BaseException as error:
                self._stop(thread, channel, patient=_is_asked_for(error))
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
        listened = time.monotonic()
        while thread.is_alive():
            self._take(channel, _POLL_SECONDS)
            self._take_waiting(channel)
            now = time.monotonic()
            if now - listened > _HELD_UP_SECONDS:
                self._watch.excuse(now - listened, now)
            listened = now
            self._record.ranks(self._watch.signs_of_life(now))
            self._refuse_more_time(now)
            self._leave_in_time(now)
            if (late := self._watch.overdue(now)) is not None:
                raise late
            if self._watch.failed():
                ending = ending or now
                if now - ending > _SETTLE_SECONDS:
                    end_thread(thread, self._launcher.cancel, _CANCEL_SECONDS)
                    return

    def _refuse_more_time(self, now: float) -> None:
        if (taken := now - self._training_began) > self._deadlines.stage:
            raise OutOfTimeError(
                f"training has taken {taken:.0f} s; expected at most cluster.deadlines.stage="
                f"{self._deadlines.stage:g} s; run the same command again to resume, or raise the deadline"
            )

    def _leave_in_time(self, now: float) -> None:
        if now < self._look_again or not self._watch.all_started():
            return
        self._look_again = now + _LEAVING_SECONDS
        leaving = leaving_executors(self._spark)
        if new := [f"executor {number} on {host}" for number, host in leaving.items() if number not in self._left]:
            raise PreemptionError(
                f"{', '.join(new)} will be taken away (decommissioned); expected executors to stay; "
                "run the same command again to resume"
            )

    def _stop(self, thread: InheritableThread, channel: ChannelServer, patient: bool) -> None:
        """End the ranks; when that was asked for, give those that train some time to save their state first."""
        try:
            if patient and self._watch.all_started():
                self._let_save(thread, channel)
        finally:
            end_thread(thread, self._launcher.cancel, _CANCEL_SECONDS)

    def _let_save(self, thread: InheritableThread, channel: ChannelServer) -> None:
        seconds = self._deadlines.save
        logger.warning(
            "train: stopping; the ranks have up to %g s (cluster.deadlines.save) to save their state, "
            "Ctrl-C ends them at once",
            seconds,
        )
        channel.ask_to_stop()
        deadline = time.monotonic() + seconds
        while thread.is_alive() and not self._watch.heard_out():
            if time.monotonic() >= deadline:
                logger.warning("train: the ranks did not save in time; the steps since the last checkpoint are lost")
                return
            self._take(channel, _POLL_SECONDS)

    def _settle(self, channel: ChannelServer) -> None:
        """Wait a moment for the last words of ranks whose end, good or bad, Spark has reported first."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not self._watch.heard_out() and time.monotonic() < deadline:
            self._take(channel, 0.1)
        self._take_waiting(channel)
        self._record.ranks(self._watch.signs_of_life(time.monotonic()))

    def _take_waiting(self, channel: ChannelServer) -> None:
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
        elif message.kind == "timings" and message.rank == 0:
            self._record.timings(body["ranks"])
        elif message.kind == "log":
            self._record.log(message.rank, body["text"])
        elif message.kind == "event":
            self._record.event(body["message"])


def _is_asked_for(error: BaseException) -> bool:
    """Whether ranks are to end with nothing wrong with them."""
    return isinstance(error, (OutOfTimeError, PreemptionError)) or not isinstance(error, PipelineError)


def same_on_all_ranks(results: list[Any]) -> Any:
    """The result, which all ranks must agree on.

    Raises:
        RankFailedError: they do not: a bug of ours.
    """
    values = [_comparable(result) for result in results]
    odd = [rank for rank, value in enumerate(values) if value != values[0]]
    if odd:
        raise RankFailedError(
            f"the results of ranks {odd} differ from rank 0's; expected the same on all ranks; please report this bug",
            detail="\n".join(f"rank {rank}: {result}" for rank, result in enumerate(results)),
        )
    return results[0]


def _comparable(value: Any) -> Any:
    """Plain values, in which NaN is equal to NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        return {name: _comparable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(inner) for inner in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value
