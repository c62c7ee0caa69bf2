"""RANK. Checkpoints of a user's own loop: when they are due, what they hold, and how a stopped training ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from pipeline.task import TrainingTask
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.progress import Progress, interruption
from pipeline.training.saving import snapshot
from pipeline.training.step import Learner, Outcome, Wishes


class OwnSaves:
    """Saves what learns.

    Args:
        stop: whether this process was told to end.

    Attributes:
        stopped: a rank was told to end, as all ranks know.
        due: a checkpoint is, as all ranks know.
    """

    def __init__(
        self,
        task: TrainingTask,
        learner: Learner,
        progress: Progress,
        writer: CheckpointWriter,
        stop: Callable[[], bool],
    ) -> None:
        self._task, self._learner, self._progress = task, learner, progress
        self._writer, self._stop = writer, stop
        self._saved = time.monotonic()
        self._averaged = False
        self.stopped = self.due = False

    def wishes(self) -> Wishes:
        """Of this rank; the clock of rank 0 decides when a checkpoint is due."""
        since = time.monotonic() - self._saved
        first = self._learner.collective.rank == 0
        return Wishes(self._stop(), first and since >= self._task.training.checkpoint.every_seconds)

    def agreed(self, outcome: Outcome) -> None:
        """What all ranks know after a step."""
        every = self._task.training.checkpoint.every_steps
        self.stopped = outcome.stop
        self.due = outcome.checkpoint or (every is not None and self._progress.step % every == 0)

    def save(self) -> None:
        """The weights themselves, not their average, wherever the loop asks for it."""
        with self.averaged() if self._averaged else contextlib.nullcontext():
            self._writer.save(snapshot(self._task, self._learner, self._progress))
        self._saved = time.monotonic()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Exchange weights and their average, if there is one; inside the first time, back the second."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        self._averaged = not self._averaged
        if self._learner.average is not None:
            self._learner.average.swap()

    def wait(self) -> None:
        """Until all that was saved is on disk, on all ranks."""
        self._writer.wait()
        self._learner.collective.barrier()

    def interrupt(self) -> None:
        """End a training that was told to, when what was saved is on disk.

        Raises:
            InterruptedRunError: always.
        """
        self.wait()
        raise interruption(self._progress)
