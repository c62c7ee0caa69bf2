"""DRIVER. How often training may restart by itself: a broken machine must not make it try for ever."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import InterruptedRunError
from pipeline.launch.watch import LostRanksError


@dataclass
class RestartBudget:
    """Two budgets, since executors that are taken away say nothing bad about the run."""

    max_failures: int
    max_preemptions: int
    failures: int = 0
    preemptions: int = 0

    @property
    def restarts(self) -> int:
        """Restarts so far."""
        return self.failures + self.preemptions

    def spend(self, error: LostRanksError) -> str:
        """Take one restart for this loss; what it was taken from.

        Raises:
            InterruptedRunError: nothing is left.
        """
        kind, limit = ("preemption", self.max_preemptions) if error.preempted else ("failure", self.max_failures)
        used = self.preemptions if error.preempted else self.failures
        if used >= limit:
            raise InterruptedRunError(
                *error.offences,
                f"the number of restarts is {used}; expected at most cluster.max_{kind}s={limit}; "
                "run the same command again to resume",
                detail=error.detail,
            ) from error
        if error.preempted:
            self.preemptions += 1
        else:
            self.failures += 1
        return f"{kind} {used + 1} of {limit}"
