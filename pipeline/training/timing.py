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
        mine = [waited / seconds, reducing / seconds, saving / seconds, seconds - reducing]
        ranks = np.array(learner.collective.gather_objects(mine))
        wait_share, communication_share, _, own = np.median(ranks, axis=0)
        return {
            "rows_per_second": self.rows / seconds,
            "data_wait_share": float(wait_share),
            "communication_share": float(communication_share),
            "checkpoint_share": float(ranks[:, 2].max()),
            "straggler_ratio": float(ranks[:, 3].max() / max(own, 1e-9)),
            "bytes_per_step": self.bytes_sent / max(1, self.steps),
        }
