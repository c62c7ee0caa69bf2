"""RANK. Where the time of an epoch goes, on this rank and compared with the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from pipeline.training.step import Learner


@dataclass
class Clock:
    """Seconds on this rank's own monotonic clock.

    Attributes:
        saved: when the last checkpoint was taken; ``reported`` when progress was told last.
        waited: for data, in the epoch under way, which began at ``epoch``; ``saving`` for checkpoints in it.
        rows: of the epoch under way, over all ranks; ``steps`` on this one.
        ranks: of the epoch before, one line for each rank: seconds ``waiting`` for data, ``computing``, in
            ``communication`` (sums, and waiting there for slower ranks) and ``saving``.
    """

    saved: float = field(default_factory=time.monotonic)
    reported: float = 0.0
    epoch: float = 0.0
    waited: float = 0.0
    saving: float = 0.0
    rows: int = 0
    steps: int = 0
    bytes_sent: int = 0
    training_seconds: float = 0.0
    ranks: list[dict[str, float]] = field(default_factory=list)

    def start_epoch(self, learner: Learner) -> None:
        """Reset what is counted per epoch."""
        self.epoch, self.waited, self.saving, self.rows, self.steps = time.monotonic(), 0.0, 0.0, 0, 0
        self.bytes_sent, learner.seconds_reducing = learner.collective.bytes_sent, 0.0
        self.training_seconds = 0.0

    def end_training(self, learner: Learner) -> None:
        """Before validation, which is not counted."""
        self.bytes_sent = learner.collective.bytes_sent - self.bytes_sent
        self.training_seconds = time.monotonic() - self.epoch

    @property
    def rows_per_second(self) -> float:
        """Of the epoch under way, over all ranks."""
        return self.rows / max(1e-9, time.monotonic() - self.epoch)

    def shares(self, learner: Learner) -> dict[str, float]:
        """What went where: the same values on all ranks.

        ``straggler_ratio`` is the largest over the median of the ranks' own time (data and computing); ranks that
        are done early wait for the others in the sums, which is ``communication_share`` of the median rank.
        """
        seconds = max(1e-9, self.training_seconds)
        waited, saving, reducing = self.waited, self.saving, learner.seconds_reducing
        gathered = learner.collective.gather_objects([waited, reducing, saving, seconds])
        self.ranks = [_line(rank, *mine) for rank, mine in enumerate(gathered)]
        spent = np.array(gathered)
        ranks = np.column_stack([spent[:, :3] / spent[:, 3:], spent[:, 3] - spent[:, 1]])
        wait_share, communication_share, _, own = np.median(ranks, axis=0)
        return {
            "rows_per_second": self.rows / seconds,
            "data_wait_share": float(wait_share),
            "communication_share": float(communication_share),
            "checkpoint_share": float(ranks[:, 2].max()),
            "straggler_ratio": float(ranks[:, 3].max() / max(own, 1e-9)),
            "bytes_per_step": self.bytes_sent / max(1, self.steps),
        }


def _line(rank: int, waited: float, reducing: float, saving: float, seconds: float) -> dict[str, float]:
    spent = {"waiting": waited, "communication": reducing, "saving": saving}
    computing = max(0.0, seconds - sum(spent.values()))
    return {"rank": rank, **{name: round(value, 3) for name, value in {**spent, "computing": computing}.items()}}
