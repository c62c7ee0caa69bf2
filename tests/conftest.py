"""What all tests share: a Spark session, the command, and a watch over what a test leaves behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

_TEMPORARY = pytest.StashKey[str]()

REPOSITORY = Path(__file__).resolve().parent.parent

SHORT_JOBS = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
"""Jobs of a few rows end before the JVM's optimizing compiler pays, which takes a third of their processor time."""

# Environment that third parties write when they are imported or first used; not ours to restore.
_FOREIGN_ENVIRONMENT = (
    "PYTEST_",
    "KMP_",
    "MLFLOW_",
    "PYSPARK_",
    "SPARK_",
    "JAVA_HOME",
    "MPL",
    "COVERAGE",
    "TORCH",
    "TRITON",
    "PYARROW",
    "ARROW",
    "HF_",
)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """One local session with two cores for all tests that need Spark, as the product makes it."""
    from pipeline.config.training import ClusterConfig
    from pipeline.launch.session import spark_session

    workspace = tmp_path_factory.mktemp("spark")
    cluster = ClusterConfig(master="local[2]", spark={"spark.sql.shuffle.partitions": "2", **SHORT_JOBS})
    with spark_session(cluster, str(workspace)) as session:
        yield session


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole run a temporary folder of its own, so that what is left in it is ours.

    A shell that starts something in the background lets it ignore SIGINT; tests of Ctrl-C need it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
    hypothesis.settings.load_profile("repeatable")
    config.stash[_TEMPORARY] = tempfile.mkdtemp(prefix="tests-")
    os.environ["TMPDIR"] = tempfile.tempdir = config.stash[_TEMPORARY]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_TEMPORARY], ignore_errors=True)


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN_ENVIRONMENT)}


def _children() -> set[psutil.Process]:
    """Live processes below this one, except the JVM of the session fixture and the Python workers it keeps."""
    children = psutil.Process().children(recursive=True)
    return {child for child in children if not _belongs_to_spark(child)}


def _belongs_to_spark(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        family = [process, *process.parents()]
        return any("java" in member.name() for member in family if member.pid != os.getpid())
    return True


def _wait_until_gone(processes: set[psutil.Process], seconds: float) -> set[psutil.Process]:
    deadline = time.monotonic() + seconds
    while processes and time.monotonic() < deadline:
        processes = {process for process in processes if _lives(process)}
        if processes:
            time.sleep(0.1)
    return processes


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()[:4]
    return ["gone"]


def _listening_ports() -> set[int]:
    """Ports that this process itself listens on."""
    with contextlib.suppress(psutil.Error):
        return {c.laddr.port for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return set()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test fails when it leaves environment, processes, ports, temporary files or files in the checkout."""
    before = (
        _environment(),
        _children(),
        _listening_ports(),
        set(os.listdir(tempfile.gettempdir())),
        os.getcwd(),
    )
    checkout = _untracked_at_top()
    yield
    environment, children, ports, temporary, folder = before
    left: list[str] = []
    if (now := _environment()) != environment:
        changed = {key for key in now.keys() | environment.keys() if now.get(key) != environment.get(key)}
        left.append(f"environment {sorted(changed)}")
        for key in changed:
            os.environ.pop(key, None)
            if key in environment:
                os.environ[key] = environment[key]
    if processes := _wait_until_gone(_children() - children, 5):
        left.append(f"processes {[_command_line(process) for process in processes if _lives(process)]}")
    if "spark" not in request.fixturenames and (opened := _listening_ports() - ports):
        left.append(f"listening ports {sorted(opened)}")
    if files := {name for name in set(os.listdir(tempfile.gettempdir())) - temporary if not name.startswith("pytest-")}:
        left.append(f"temporary files {sorted(files)}")
    if made := _untracked_at_top() - checkout:
        left.append(f"files in the checkout {sorted(made)}")
    if os.getcwd() != folder:
        left.append(f"working directory {os.getcwd()}")
        os.chdir(folder)
    assert not left, f"the test left behind: {'; '.join(left)}"


def _untracked_at_top() -> set[str]:
    return {name for name in os.listdir(REPOSITORY) if not name.startswith(".")}


@pytest.fixture(autouse=True)
def no_new_threads_that_block_exit() -> Iterator[None]:
    """A forgotten non-daemon thread would keep a finished job from ending."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        left = [t for t in threading.enumerate() if t not in before and not t.daemon and not _of_mlflow_pool(t)]
        if not left:
            return
        time.sleep(0.05)
    pytest.fail(f"threads left running: {[thread.name for thread in left]}")


def _of_mlflow_pool(thread: threading.Thread) -> bool:
    """Idle threads of MLflow's artifact stores, which end with the interpreter by themselves."""
    return thread.name.startswith("Mlflow")


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The `pipeline` command of this environment."""
    return [sys.executable, "-m", "pipeline.cli"]


@pytest.fixture(scope="session")
def run_command(command: list[str]):
    """Run the command as a user would; gives the finished process with its output."""

    def run(*arguments: str, timeout: float = 280, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=timeout, **options)

    return run
