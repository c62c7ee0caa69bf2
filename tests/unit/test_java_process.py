"""The Java process of a session: known from its first moment, so that no signal at any line of its start leaves it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import psutil
import pytest

from pipeline.launch import environment, gateway, jvm, temporary
from pipeline.launch.environment import interrupts_held_back
from pipeline.launch.temporary import joint_owner, temporary_folder

_TRACED = {module.__file__ for module in (environment, gateway, jvm, temporary, subprocess)}
_NEVER_ANSWERS = "#!/bin/sh\nexec sleep 600\n"


@pytest.fixture
def spark_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Spark whose Java process is one that starts for ever."""
    script = tmp_path / "home" / "bin" / "spark-submit"
    script.parent.mkdir(parents=True)
    script.write_text(_NEVER_ANSWERS)
    script.chmod(0o755)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@contextlib.contextmanager
def _interrupted_at(number: int) -> Iterator[None]:
    """SIGINT when so many different lines of what starts and ends a session have been reached."""
    reached: set[tuple[str, int]] = set()

    def look(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in _TRACED:
            return None
        if event == "line" and (place := (frame.f_code.co_filename, frame.f_lineno)) not in reached:
            reached.add(place)
            if len(reached) == number:
                signal.raise_signal(signal.SIGINT)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


def test_ctrl_c_at_any_line_of_a_start_leaves_no_process_no_folder_and_no_handler(
    spark_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, others, waits = signal.getsignal(signal.SIGINT), psutil.Process().children(), []

    def interrupted(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(gateway, "time", SimpleNamespace(sleep=interrupted, monotonic=time.monotonic))
    workspace, trials = tmp_path / "workspace", 0
    while not waits:
        trials += 1
        with (
            pytest.raises(KeyboardInterrupt),
            _interrupted_at(trials),
            temporary_folder(str(workspace)) as folder,
            jvm.own_session({"spark.master": "local"}, {}, folder / "log"),
        ):
            pass
        assert psutil.Process().children() == others, f"interrupted at line {trials}"
        assert not workspace.exists() or not list(workspace.iterdir()), f"interrupted at line {trials}"
        assert signal.getsignal(signal.SIGINT) is handler, f"interrupted at line {trials}"
    assert trials > 100


def test_what_signals_raise_waits_for_the_end_of_the_block_and_handlers_are_as_before() -> None:
    before, reached = signal.getsignal(signal.SIGINT), []

    def hold_back() -> None:
        with interrupts_held_back():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        hold_back()
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_that_does_not_end_by_itself_is_killed_at_once_by_a_second_ctrl_c(
    spark_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = gateway.JavaProcess(tmp_path)
    with (tmp_path / "log").open("wb") as output:
        java.start({}, output)
    java.has_answered = True
    with monkeypatch.context() as patched:
        for of_pyspark in ("_stop_accumulators", "_stop_session", "_forget"):  # which may know another session
            patched.setattr(jvm, of_pyspark, list)
        patched.setattr(gateway.JavaProcess, "exit_code", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            jvm._stop(java)
    assert java.exit_code() == -signal.SIGKILL


def test_a_ctrl_c_while_the_process_is_killed_leaves_pyspark_no_session_of_it(
    spark_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java, forgotten = gateway.JavaProcess(tmp_path), []
    with (tmp_path / "log").open("wb") as output:
        java.start({}, output)
    java.has_answered = True
    with monkeypatch.context() as patched:
        for of_pyspark in ("_stop_accumulators", "_stop_session"):
            patched.setattr(jvm, of_pyspark, list)
        patched.setattr(jvm, "_forget", lambda: forgotten.append(java))
        patched.setattr(gateway.JavaProcess, "end", lambda *_: None)
        patched.setattr(gateway.os, "killpg", lambda *_: (os.kill(java._process.pid, 9), signal.raise_signal(2)))
        with pytest.raises(KeyboardInterrupt):
            jvm._stop(java)
    assert forgotten == [java]
    assert java.exit_code() == -signal.SIGKILL


_DRIVER = """
import sys
from pathlib import Path
from pipeline.launch.gateway import JavaProcess
from pipeline.launch.temporary import temporary_folder
with temporary_folder(sys.argv[1]) as folder, (folder / "log").open("wb") as output:
    JavaProcess(folder).start({}, output)
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def test_after_sigkill_of_the_driver_a_folder_is_swept_when_its_java_process_is_gone_too(
    spark_home: Path, tmp_path: Path
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    name = driver.stdout.readline().strip()
    [java] = psutil.Process(driver.pid).children()
    driver.kill()
    driver.communicate()
    with temporary_folder(str(tmp_path)) as folder:
        assert (folder.parent / name).exists(), "the process is to say its port there, or it would wait for ever"
        java.kill()
        psutil.wait_procs([java])
        with temporary_folder(str(tmp_path)):
            assert not (folder.parent / name).exists()


def test_a_folder_is_owned_until_its_last_owner_is_gone(tmp_path: Path) -> None:
    with temporary_folder(str(tmp_path)) as folder:
        with joint_owner(folder) as descriptor:
            kept = os.dup(descriptor)
        base = folder.parent
    folder.mkdir(parents=True)
    with joint_owner(folder) as descriptor:
        os.dup2(descriptor, kept)
    with temporary_folder(str(tmp_path)):
        assert folder.exists()
    os.close(kept)
    with temporary_folder(str(tmp_path)):
        assert [path.name for path in base.iterdir() if path.name == folder.name] == []
