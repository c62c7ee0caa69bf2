"""DRIVER. What a person sees while work goes on: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

_LIVE_SECONDS = 0.1
_PLAIN_SECONDS = 10.0
_SHOWN = ("train_loss", "validation_loss", "accuracy", "roc_auc", "rmse", "r2")


class ProgressDisplay:
    """Shows the progress of one stage; as a `pipeline.task.Reporter` it shows training.

    Args:
        stage: the name in front of each line.
        quiet: show nothing.
        stream: by default stderr, so that stdout stays for results.
    """

    def __init__(self, stage: str, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stage = stage
        self._stream = None if quiet else stream or sys.stderr
        self._live = self._stream is not None and self._stream.isatty()
        self._begun = time.monotonic()
        self._shown = float("-inf")
        self._open_line = False
        self._epoch = -1
        self._first: tuple[float, float] | None = None

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
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

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        shown = ", ".join(
            f"{name.replace('_', ' ')} {value:.4f}"
            for name, value in values.items()
            if name.endswith(_SHOWN) and isinstance(value, float)
        )
        self.say(f"step {step:,}: {shown}")

    def resumed(self, step: int) -> None:
        self._first = None
        if step > 0:
            self.say(f"resumed from step {step:,}")

    def event(self, message: str) -> None:
        self.say(message)

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
            self._stream.write(f"\r\x1b[K{line[:width]}")
            self._open_line = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._open_line and self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._open_line = False


def duration(seconds: float) -> str:
    """Seconds as people read them: ``1 h 02 min``, ``3 min 20 s``, ``7 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
