"""Numbered steps with seconds, and long commands whose output goes to a log file.

ANYWHERE, standard library only: set-up runs before any package is installed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

REPEAT = "check the network, then run the same command again: it goes on where it stopped"
SECONDS_BETWEEN_LINES = 30  # where the output is not a terminal


class SetupError(Exception):
    """Something that the user has to change; each argument is one line."""


def last_line(output: str) -> str:
    """What a command last said."""
    lines = output.strip().splitlines()
    return lines[-1].strip() if lines else ""


class Console:
    """Tells how far the set-up is, and runs its commands.

    Args:
        steps: how many steps there will be.
        log: the file that takes all output of the commands.
        inherited: a descriptor that the commands keep open, so that a lock outlives us with them.
    """

    def __init__(self, steps: int, log: Path, inherited: int) -> None:
        self._steps = steps
        self._done = 0
        self._log = log
        self._inherited = inherited
        self._live = sys.stdout.isatty()
        log.write_text("")

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce a step, and say how long it took."""
        self._done += 1
        started = time.monotonic()
        print(f"[{self._done}/{self._steps}] {what}", flush=True)
        yield
        self._note(f"done in {time.monotonic() - started:.1f} s", final=True)

    def run(
        self,
        command: list[str | Path],
        failure: str,
        *,
        environment: dict[str, str] | None = None,
        progress: Callable[[str], str] = last_line,
    ) -> None:
        """Run a command to its end, or stop it with all its children when we are interrupted.

        Args:
            command: program and arguments.
            failure: what to say, and to do, when it fails.
            environment: variables to set beside ours.
            progress: makes a short note of how far it is out of the end of its output.

        Raises:
            SetupError: the command failed; the lines are its own errors and `failure`.
        """
        foreign = ("PYTHONPATH", "PYTHONHOME")  # packages from elsewhere would seem to be installed
        variables = {name: value for name, value in os.environ.items() if name not in foreign}
        start = self._log.stat().st_size
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables | (environment or {}),
                start_new_session=True,  # one group, so that compilers end with pip
                pass_fds=(self._inherited,),
            )
        try:
            code = self._wait(process, start, progress)
        except BaseException:
            _stop(process)
            raise
        if code != 0:
            errors = [line.strip() for line in self._output(start).splitlines() if line.startswith("ERROR")]
            raise SetupError(*errors[-3:], f"{failure} (all output: {self._log})")

    def _wait(self, process: subprocess.Popen[bytes], start: int, progress: Callable[[str], str]) -> int:
        started = time.monotonic()
        spoken = 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.5)
            seconds = time.monotonic() - started
            if self._live or seconds - spoken >= SECONDS_BETWEEN_LINES:
                spoken = seconds
                self._note(f"{seconds:.0f} s  {progress(self._output(start)[-100_000:])[:70]}")

    def _output(self, start: int) -> str:
        with self._log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def _note(self, text: str, *, final: bool = False) -> None:
        if self._live:
            print(f"\r\033[K      {text}", end="\n" if final else "", flush=True)
        else:
            print(f"      {text}", flush=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a command and its children: asked first, made to after five seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
            return
