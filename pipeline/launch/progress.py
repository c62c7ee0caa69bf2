"""DRIVER. What a person sees while work goes on: one live line on a terminal or in a notebook, plain lines elsewhere.

The log stands beside it, and says what is not repeated here: steps, events, what rank 0 prints.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

_LIVE_SECONDS = 0.1
_PLAIN_SECONDS = 10.0
_SHOWN = ("train_loss", "validation_loss", "accuracy", "roc_auc", "rmse", "r2")


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, so that what is printed stands below a cell."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@contextlib.contextmanager
def narrated(progress: bool | None) -> Iterator[bool]:
    """Make what a stage does seen while the block runs: by its log lines, unless the program shows those already.

    Args:
        progress: whether to; by default in a notebook and on a terminal.

    Yields:
        Whether it is seen.
    """
    if not (in_notebook() or sys.stderr.isatty() if progress is None else progress):
        yield False
        return
    log = logging.getLogger("pipeline")
    if log.isEnabledFor(logging.INFO) and log.hasHandlers():
        yield True
        return
    handler = _LogBeside(_stream(), shown_elsewhere=log.getEffectiveLevel() if log.hasHandlers() else None)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield True
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def _stream() -> TextIO:
    """Results are what a program prints, so progress goes to stderr; a notebook shows that as if it were an error."""
    return sys.stdout if in_notebook() else sys.stderr


class _LogBeside(logging.StreamHandler[TextIO]):
    """Log lines that are shown once.

    Args:
        stream: where they go.
        shown_elsewhere: the level from which the program's own handlers show them.
    """

    def __init__(self, stream: TextIO, shown_elsewhere: int | None) -> None:
        super().__init__(stream)
        self._shown_elsewhere = shown_elsewhere

    def emit(self, record: logging.LogRecord) -> None:
        if self._shown_elsewhere is not None and record.levelno >= self._shown_elsewhere:
            logging.getLogger().callHandlers(record)
            return
        super().emit(record)


class ProgressDisplay:
    """Shows the progress of one stage; as a `pipeline.task.Reporter` it shows training.

    Args:
        stage: the name in front of each line.
        quiet: show nothing.
        stream: by default stderr, so that stdout stays for results; in a notebook stdout.
    """

    shown: ProgressDisplay | None = None
    """The one whose live line is on the screen."""

    def __init__(self, stage: str, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stage = stage
        self._stream = None if quiet else stream or _stream()
        self._live = self._stream is not None and (self._stream.isatty() or (stream is None and in_notebook()))
        self._begun = time.monotonic()
        self._shown = float("-inf")
        self._line = ""
        self._epoch = -1
        self._step = ""
        self._beside: list[logging.Handler] = []
        self._first: tuple[float, float] | None = None

    def __enter__(self) -> ProgressDisplay:
        """While it is open, log lines do not run into its live line."""
        self._beside = logging.getLogger("pipeline").handlers[:] if self._live else []
        for handler in self._beside:
            handler.addFilter(_on_a_clean_line)
        return self

    def __exit__(self, *_: object) -> None:
        for handler in self._beside:
            handler.removeFilter(_on_a_clean_line)
        self.close()

    def update(self, done: float, total: float | None, text: str = "") -> None:
        """So much of the total is done; shown if the last line is old enough."""
        now = time.monotonic()
        self._first = self._first or (now, done)
        if self._stream is None or now - self._shown < (_LIVE_SECONDS if self._live else _PLAIN_SECONDS):
            return
        self._shown = now
        parts = [self._share(done, total), text, self._remaining(now, done, total)]
        self._show(", ".join(part for part in parts if part))

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._stream is not None:
            self._clear()
            print(f"{self._stage}: {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal with a clean line."""
        if self._stream is not None:
            self._clear()

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        if epoch != self._epoch and not self._live:
            self._epoch, self._shown = epoch, float("-inf")
        self.update(step, steps, f"epoch {epoch}, step {step:,}, loss {loss:.4f}, {rows_per_second:,.0f} rows/s")

    def tasks(self, step: str, done: int, total: int) -> None:
        """So many of the Spark tasks of a step that are known by now; live only, since the log says each step."""
        if step != self._step or not total:
            self._step, self._first, self._shown = step, None, float("-inf")
            self.close()
        if self._live and total:
            self.update(done, total, f"{step}, {done:,} of {total:,} tasks")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        shown = ", ".join(
            f"{name.replace('_', ' ')} {value:.4f}"
            for name, value in values.items()
            if name.endswith(_SHOWN) and isinstance(value, float)
        )
        self.say(f"step {step:,}: {shown}")

    def resumed(self, step: int) -> None:
        self._first = None

    def event(self, message: str) -> None:
        """The log says it."""

    def timings(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        """`pipeline status` shows it."""

    def _share(self, done: float, total: float | None) -> str:
        if not total:
            return ""
        share = min(1.0, done / total)
        bar = f"[{'#' * int(share * 20):<20}] " if self._live else ""
        return f"{bar}{share:4.0%}"

    def _remaining(self, now: float, done: float, total: float | None) -> str:
        if not total or self._first is None or done <= self._first[1]:
            return ""
        since, at = self._first
        return f"{duration((now - since) / (done - at) * max(0.0, total - done))} left"

    def _show(self, text: str) -> None:
        assert self._stream is not None
        line = f"{self._stage}: {text}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._clear()
            self._line = line[:width]
            self._stream.write(self._line)
            ProgressDisplay.shown = self
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _clear(self) -> None:
        """Blanks, since a notebook knows no other way to erase a line."""
        if self._line and self._stream is not None:
            self._stream.write(f"\r{' ' * len(self._line)}\r")
            self._stream.flush()
            self._line = ""
            ProgressDisplay.shown = None


def _on_a_clean_line(_: logging.LogRecord) -> bool:
    """A filter of log handlers that lets everything pass."""
    if ProgressDisplay.shown is not None:
        ProgressDisplay.shown.close()
    return True


def duration(seconds: float) -> str:
    """Seconds as people read them: ``1 h 02 min``, ``3 min 20 s``, ``7 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
