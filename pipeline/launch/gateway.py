"""DRIVER. The Java process that PySpark talks to, started so that it never outlives this one.

PySpark's own start tells nobody of its process before that answers. After a Ctrl-C until then it would stay for ever:
it ends with its stdin, but never reads it where the folder is gone in which it is to say its port.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pyspark.find_spark_home import _find_spark_home
from pyspark.java_gateway import launch_gateway

from pipeline.launch.environment import environment, interrupts_held_back
from pipeline.launch.temporary import joint_owner

_POLL_SECONDS = 0.05
_CLASSIC = {"SPARK_CONNECT_MODE": "0"}  # as PySpark 4 starts it

logger = logging.getLogger(__name__)


class JavaProcess:
    """A process that is started once, and ended whatever interrupts that.

    Args:
        folder: temporary folder where it says its port. The process is an owner of it too, so that nobody sweeps it
            while the process still starts though its driver was killed.

    Attributes:
        has_answered: PySpark may know of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = folder / "gateway"
        self._process: subprocess.Popen[bytes] | None = None
        self.has_answered = False

    def start(self, settings: Mapping[str, str], output: IO[bytes]) -> None:
        """Start it, in a session of its own: Ctrl-C in a terminal reaches Python alone.

        Args:
            settings: of Spark, which stand on its command line.
            output: file for what it and its children write to stdout and stderr.
        """
        command = [os.path.join(_find_spark_home(), "bin", "spark-submit")]  # type: ignore[no-untyped-call]
        for key, value in settings.items():
            command += ["--conf", f"{key}={value}"]
        command += shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell"))
        with joint_owner(self._folder) as lock, interrupts_held_back():
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **_CLASSIC, "_PYSPARK_DRIVER_CONN_INFO_PATH": str(self._told)},
                start_new_session=True,
                pass_fds=[lock],
            )

    def connect(self) -> Any:
        """PySpark's gateway to the process, as soon as that answers.

        Raises:
            RuntimeError: it has ended.
        """
        while not self._told.exists():
            if self.exit_code() is not None:
                raise RuntimeError("its Java process ended")
            time.sleep(_POLL_SECONDS)
        told = self._told.read_bytes()
        port, length = struct.unpack_from(">ii", told)
        secret = told[8 : 8 + length].decode()
        self.has_answered = True
        with environment({"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}):
            return launch_gateway()  # type: ignore[no-untyped-call]

    def exit_code(self, seconds: float = 0.0) -> int | None:
        """How it ended, at the latest after so many seconds; None if it lives, or has never been started."""
        if self._process is None:
            return None
        deadline = time.monotonic() + seconds
        while True:
            with interrupts_held_back():  # one in the middle of it would leave a lock of Popen's taken
                code = self._process.poll()
            if code is not None or time.monotonic() >= deadline:
                return code
            time.sleep(_POLL_SECONDS)

    def end(self, seconds: float) -> None:
        """Let it end by itself, for which one that has never answered is given no time, or else kill it."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self.has_answered and self.exit_code(seconds) is None:
            logger.warning("the Java process of Spark did not end by itself; killing it")
        self.kill()

    def kill(self) -> None:
        """End it, and what started it, if they live; interrupts wait so long."""
        with interrupts_held_back():
            if self._process is not None and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
