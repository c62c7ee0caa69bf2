"""DRIVER. Judges from what the ranks say whether they live, move on, or have failed, and whose fault it was.

No sockets, no Spark: messages and the time go in, an error comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.config.training import DeadlineConfig
from pipeline.errors import InterruptedRunError, PipelineError, RankFailedError, ServiceError
from pipeline.launch.channel import Message

_BY_CODE = {kind.code: kind for kind in PipelineError.__subclasses__()}
_RECONNECT_SECONDS = 3.0
_LONGEST_REASON = 1000
_IN_A_COLLECTIVE = (
    "horovod.",
    "pipeline.training.collective",
    "pipeline.training.torch_collective",
    "pipeline.training.shared_memory",
    "pipeline.training.host_meeting",
    "pipeline.training.host_peers",
)
_EXECUTOR_LOST = ("ExecutorLostFailure", "Executor lost", "worker lost", "decommission")


class LostRanksError(InterruptedRunError):
    """Ranks were killed, hung or taken away: nobody's code is wrong, and a restart may help.

    Attributes:
        preempted: the executor went, and not only the process.
    """

    preempted = False


@dataclass
class RankState:
    """What is known of one rank; times are of the driver's monotonic clock."""

    rank: int
    host: str = ""
    pid: int = 0
    step: int = 0
    where: str = ""
    seen: float = 0.0
    moved: float = 0.0
    lost: float | None = None
    ended: bool = False
    failure: dict[str, Any] | None = None


@dataclass
class Watch:
    """Follows the ranks of one attempt."""

    world_size: int
    deadlines: DeadlineConfig
    begun: float
    ranks: dict[int, RankState] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    failures: list[RankState] = field(default_factory=list)

    def note(self, message: Message, now: float) -> None:
        """Take in what a rank said."""
        state = self.ranks.setdefault(message.rank, RankState(message.rank, moved=now))
        if message.kind == "lost":
            state.lost = now
            return
        state.seen, state.lost = now, None
        if message.kind == "hello":
            state.host, state.pid = str(message.body["host"]), int(message.body["pid"])
        elif message.kind == "started":
            self.started.add(message.rank)
            state.moved = now
        elif message.kind == "heartbeat":
            state.where = str(message.body.get("where", ""))
        elif message.kind == "log":
            return
        elif message.kind == "failure":
            state.failure = dict(message.body)
            self.failures.append(state)
        elif message.kind == "bye":
            state.ended = True
        else:
            state.step = int(message.body.get("step", state.step))
            state.moved = now

    def excuse(self, seconds: float, now: float) -> None:
        """So long the driver has not listened (a slow store, a suspended process), which counts against nobody."""
        for state in self.ranks.values():
            state.seen, state.moved = min(state.seen + seconds, now), min(state.moved + seconds, now)
            if state.lost is not None:
                state.lost = min(state.lost + seconds, now)

    def failed(self) -> bool:
        """Whether some rank has said that it fails for a reason of its own."""
        return any(state.failure is not None and not state.failure["secondary"] for state in self.failures)

    def all_started(self) -> bool:
        """Whether the ranks have found each other: from then on they can save and look whether they are to stop."""
        return len(self.started) == self.world_size

    def heard_out(self) -> bool:
        """Whether nothing more will come: every rank has reported, and has said goodbye or its stream has ended."""
        return len(self.ranks) == self.world_size and all(
            state.ended or state.lost is not None for state in self.ranks.values()
        )

    def overdue(self, now: float) -> PipelineError | None:
        """The error of a deadline that has passed."""
        late = self._stuck if self.all_started() else self._not_started
        return self._lost(now) or self._silent(now) or late(now)

    def _not_started(self, now: float) -> PipelineError | None:
        if now - self.begun <= self.deadlines.launch:
            return None
        missing = sorted(set(range(self.world_size)) - set(self.ranks))
        waiting = sorted(set(self.ranks) - self.started)
        said = f"ranks {missing} have not reported" if missing else f"ranks {waiting} have not found each other"
        return ServiceError(
            f"{len(self.started)} of {self.world_size} ranks have started after {now - self.begun:.0f} s ({said}); "
            f"expected all within cluster.deadlines.launch={self.deadlines.launch:g} s; look for other jobs that hold "
            "the cluster's slots and for firewalls between its hosts"
        )

    def _lost(self, now: float) -> PipelineError | None:
        gone = [
            state
            for state in self.ranks.values()
            if state.lost is not None and state.failure is None and now - state.lost > _RECONNECT_SECONDS
        ]
        return killed(_first_lost(gone)) if gone else None

    def _silent(self, now: float) -> PipelineError | None:
        silent = [
            state
            for state in self.ranks.values()
            if not state.ended and state.failure is None and now - state.seen > self.deadlines.silence
        ]
        if not silent:
            return None
        names = ", ".join(f"rank {state.rank} on {state.host} (pid {state.pid})" for state in silent)
        return LostRanksError(
            f"{names} gave no sign of life for {now - silent[0].seen:.0f} s at step {silent[0].step} or later; "
            f"expected one within cluster.deadlines.silence={self.deadlines.silence:g} s; the process hangs or its "
            "host is gone; run the same command again to resume"
        )

    def _stuck(self, now: float) -> PipelineError | None:
        alive = [state for state in self.ranks.values() if not state.ended and state.failure is None]
        if not alive or any(now - state.moved <= self.deadlines.step for state in alive):
            return None
        suspects = [state for state in alive if not any(sign in state.where for sign in _IN_A_COLLECTIVE)] or alive
        names = "; ".join(
            f"rank {state.rank} on {state.host} (pid {state.pid}), in {state.where or 'an unknown place'}"
            for state in suspects
        )
        return LostRanksError(
            f"no rank has finished a step for {self.deadlines.step:g} s after step {max(s.step for s in alive)}, held "
            f"up by {names}; expected one within cluster.deadlines.step; find out what it waits for, then run the same "
            "command again to resume"
        )

    def signs_of_life(self, now: float) -> list[dict[str, Any]]:
        """What `pipeline status` shows of each rank."""
        return [
            {
                "rank": state.rank,
                "host": state.host,
                "pid": state.pid,
                "step": state.step,
                "seconds_silent": round(now - state.seen, 1),
            }
            for _, state in sorted(self.ranks.items())
        ]

    def verdict(self, spark_error: BaseException | None) -> PipelineError:
        """Why an attempt that has ended without success did so: the first cause, never its consequences."""
        reason = str(spark_error).strip() if spark_error is not None else "no result"
        for state in self.failures:
            if state.failure is not None and not state.failure["secondary"]:
                return failed(state)
        gone = [state for state in self.ranks.values() if not state.ended and state.failure is None]
        if gone or self.failures:
            error = killed(_first_lost(gone)) if gone else lost_elsewhere(self.failures[0])
            error.preempted = any(sign in reason for sign in _EXECUTOR_LOST)
            return error
        return RankFailedError(
            "the ranks ended before they could report; expected a result; see Spark's reason below",
            detail=python_part(reason),
        )


def _first_lost(gone: list[RankState]) -> RankState:
    """Of ranks that said nothing, the one whose stream ended first; the others may only be about to follow it."""
    return min(gone, key=lambda state: (state.lost is None, state.lost or 0.0))


def failed(state: RankState) -> PipelineError:
    """The error of a rank that told why it failed: ours keep their kind, all others are the user's code or a bug."""
    record = state.failure or {}
    kind = _BY_CODE.get(record.get("code") or 0)
    who = f"rank {state.rank} on {state.host}"
    if kind is InterruptedRunError:
        kind = LostRanksError
    if kind is not None:
        error = kind(*(f"{offence} ({who})" for offence in record["offences"]), detail=record["detail"])
        if isinstance(error, LostRanksError):
            error.preempted = True
        return error
    known = record.get("step")
    step = "" if known is None else f" after step {known} or later"  # ranks tell it now and then
    return RankFailedError(
        f"{who} failed{step}: {record['type']}: {_first_line(record['message'])}; expected it to go on; "
        "see its traceback below",
        detail=record["traceback"],
    )


def killed(state: RankState) -> LostRanksError:
    """The error of a rank that is gone without a word."""
    return LostRanksError(
        f"rank {state.rank} on {state.host} (pid {state.pid}) was lost at step {state.step} or later; expected it to "
        "live; it was killed (out of memory?) or its executor or host is gone; run the same command again to resume"
    )


def lost_elsewhere(state: RankState) -> LostRanksError:
    """Only a consequence is known: a rank's collective failed, and nobody said why."""
    return LostRanksError(*(state.failure or {})["offences"] or ("a rank was lost; expected all to live; run again",))


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "no message"
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def python_part(reason: str) -> str:
    """Of Spark's long error text the part that Python wrote."""
    start = reason.find("Traceback (most recent call last)")
    lines = reason[max(start, 0) :].splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("\tat ")), len(lines))
    return "\n".join(lines[: min(end, 60)])
