"""Signals end a command as Ctrl-C does, a closed terminal included, and never one that has said its RESULT."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

_WAITS = """
import sys, time
from pipeline import cli, commands

def wait(options):
    try:
        print("going", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr, flush=True)
        raise

commands.config = wait
sys.argv = ["pipeline", "config", "schema"]
sys.exit(cli.main())
"""
_HEARS = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
"""Even where nohup has started the tests."""
_ENDS = """
import atexit, os, signal, sys, time
from pipeline import cli, commands

def interrupt():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    time.sleep(0.01)

atexit.register(interrupt)
commands.config = lambda options: {"what": "all"}
sys.argv = ["pipeline", "config", "schema"]
sys.exit(cli.main())
"""


def _result(output: str) -> dict[str, object]:
    return dict(json.loads(output.splitlines()[-1].removeprefix("RESULT ")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_interrupts_a_command(number: signal.Signals) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", _HEARS + _WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "going\n"
    command.send_signal(number)
    output, errors = command.communicate(timeout=60)
    assert command.returncode == 75
    assert (_result(output)["status"], _result(output)["code"]) == ("interrupted", 75)
    assert errors == "stopping\nerror[75]: interrupted; run the same command again to resume\n"


def test_a_closed_terminal_interrupts_a_command_which_then_writes_there_no_more() -> None:
    ours, terminal = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-c", _HEARS + _WAITS], stdout=subprocess.PIPE, stderr=terminal, text=True
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "going\n"
    os.close(terminal)
    os.close(ours)
    command.send_signal(signal.SIGHUP)
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 75
    assert _result(output)["status"] == "interrupted"


def test_a_command_that_nohup_has_started_outlives_its_terminal() -> None:
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    ends = _WAITS.replace("time.sleep(60)", "signal.raise_signal(signal.SIGHUP)")
    done = subprocess.run([sys.executable, "-c", ignore + ends], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "going\n"
    assert done.stderr == ""


def test_after_its_result_no_signal_changes_how_a_command_has_ended() -> None:
    done = subprocess.run([sys.executable, "-c", _ENDS], capture_output=True, text=True, timeout=60)
    assert _result(done.stdout) == {"status": "done", "stage": "config", "what": "all"}
    assert done.stderr == ""
    assert done.returncode == 0
