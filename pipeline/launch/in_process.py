"""DRIVER. The launcher for debugging: one rank in this very process, no Spark, no Horovod, no sockets.

It leaves the same traces as the others: ``logs/rank-0.log``, and its rank in ``status.json``.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import PipelineError, RankFailedError
from pipeline.launch.environment import stop_on_signals
from pipeline.launch.output import output_kept, petastorm_quiet
from pipeline.launch.rank import Body, resolve
from pipeline.launch.record import RunRecord


def run_in_process(body: Body | str, task: Any, record: RunRecord) -> Any:
    """Run the body as the only rank.

    Raises:
        RankFailedError: the user's code failed; errors of this package keep their kind.
    """
    from pipeline.training.collective import SoloCollective

    reporter = _OneRank(record)
    record.keep(0, f"rank 0 is in the driver's own process (pid {os.getpid()})\n")
    with stop_on_signals(signal.SIGTERM) as stop, output_kept(lambda text: record.keep(0, text)), petastorm_quiet():
        try:
            return resolve(body)(task, SoloCollective(), reporter, stop)
        except PipelineError:
            raise
        except Exception as error:
            record.keep(0, traceback.format_exc())
            raise RankFailedError(
                f"rank 0 failed: {type(error).__name__}: {error}; expected it to go on; see its traceback below",
                detail=traceback.format_exc(),
            ) from error


class _OneRank:
    """Implements `pipeline.task.Reporter`: the record hears all directly, and that the rank lives."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._rank = {"rank": 0, "host": socket.gethostname(), "pid": os.getpid(), "step": 0}
        self._alive(0)

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        self._alive(step)
        self._record.progress(epoch=epoch, step=step, steps=steps, loss=loss, rows_per_second=rows_per_second)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._alive(step)
        self._record.metrics(values, step)

    def resumed(self, step: int) -> None:
        self._record.resumed(step)

    def event(self, message: str) -> None:
        self._record.event(message)

    def timings(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        self._record.timings(ranks)

    def _alive(self, step: int) -> None:
        self._rank["step"] = step
        self._record.ranks([{**self._rank, "seconds_silent": 0.0}])
