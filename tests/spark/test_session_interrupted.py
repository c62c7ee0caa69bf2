"""A real JVM never outlives who starts it: not after Ctrl-C, SIGTERM or SIGKILL while it starts."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.launch.temporary import temporary_folder

_PROGRAM = """
import signal, sys
from pipeline.config.training import ClusterConfig
from pipeline.launch.session import spark_session
signal.signal(signal.SIGTERM, signal.default_int_handler)
with spark_session(ClusterConfig(master="local[1]"), sys.argv[1]):
    sys.exit("started before the signal came")
"""
Moment = Callable[[Path, list[str]], bool]


def _script(_: Path, commands: list[str]) -> bool:
    return any("spark-submit" in command or "spark-class" in command for command in commands)


def _java(_: Path, commands: list[str]) -> bool:
    return any("java" in command and "org.apache.spark.deploy.SparkSubmit" in command for command in commands)


def _answer(workspace: Path, _: list[str]) -> bool:
    return any(workspace.glob(".tmp/*/gateway"))


def _commands(processes: list[psutil.Process]) -> list[str]:
    commands = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            commands.append(" ".join(process.cmdline()))
    return commands


def _until(moment: Moment, program: subprocess.Popen[str], workspace: Path) -> list[psutil.Process]:
    """Wait for a moment of its start; the processes that are there then."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and program.poll() is None:
        family = psutil.Process(program.pid).children(recursive=True)
        if moment(workspace, _commands(family)):
            return family
        time.sleep(0.002)
    raise AssertionError(f"its start has no such moment: {program.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", [_script, _java, _answer], ids=["its script runs", "Java runs", "it has answered"])
def test_a_signal_while_the_jvm_starts_leaves_neither_it_nor_its_files(
    tmp_path: Path, moment: Moment, number: signal.Signals
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family = _until(moment, program, tmp_path)
    program.send_signal(number)
    _, errors = program.communicate(timeout=60)
    if number == signal.SIGKILL:
        with temporary_folder(str(tmp_path)):  # the next command does not sweep what a JVM still starts in
            assert not psutil.wait_procs(family, timeout=60)[1]
        with temporary_folder(str(tmp_path)) as folder:
            assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
    else:
        assert errors.endswith("KeyboardInterrupt\n")
        assert not psutil.wait_procs(family, timeout=20)[1]
    assert {path.name for path in tmp_path.iterdir()} <= {"spark.log"}
