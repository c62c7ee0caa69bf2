"""A small slice of the real flights, and commands run on it as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SHORT_JOBS

REPOSITORY = Path(__file__).resolve().parents[2]
FLIGHTS = REPOSITORY / "examples" / "flights"
DAYS = {(month, day) for month in range(1, 13) for day in (3, 14, 26)}


@pytest.fixture(scope="session")
def flights_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with flights.csv, weather.csv and planes.csv of 36 days of the year."""
    subprocess.run([sys.executable, str(FLIGHTS / "fetch.py")], check=True)
    folder = tmp_path_factory.mktemp("flights-data")
    for name in ("flights", "weather"):
        _copy_days(FLIGHTS / "data" / f"{name}.csv", folder / f"{name}.csv")
    (folder / "planes.csv").write_bytes((FLIGHTS / "data" / "planes.csv").read_bytes())
    return folder


def _copy_days(source: Path, target: Path) -> None:
    with source.open(newline="") as full, target.open("w", newline="") as part:
        reader = csv.DictReader(full)
        writer = csv.DictWriter(part, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows(row for row in reader if (int(row["month"]), int(row["day"])) in DAYS)


def read_result(stdout: str) -> dict[str, Any]:
    """The RESULT of a command: its last line of stdout."""
    last = stdout.rstrip().splitlines()[-1]
    assert last.startswith("RESULT "), stdout[-2000:]
    return dict(json.loads(last.removeprefix("RESULT ")))


@pytest.fixture(scope="session")
def arguments(flights_data: Path) -> Callable[..., list[str]]:
    """Arguments for a command on the example's configuration, the slice, and a workspace of the test's own."""

    def build(verb: str, workspace: Path, *overrides: str) -> list[str]:
        small = {
            **{f"source.inputs.{name}.path": flights_data / f"{name}.csv" for name in ("flights", "weather", "planes")},
            "dataset.url": workspace / "flights",
            "training.run_url": workspace / "runs" / "flights",
            "tracking.uri": f"sqlite:///{workspace}/mlflow.db",
            "training.epochs": 2,
            "cluster.spark": json.dumps(SHORT_JOBS),
            "gate": "{roc_auc: {min: 0.5}}",
        }
        settings = [f"{key}={value}" for key, value in small.items()] + list(overrides)
        return [verb, str(FLIGHTS / "pipeline.yaml"), *(part for text in settings for part in ("--set", text))]

    return build


class Started:
    """A command that runs in a process group of its own, as from a terminal."""

    def __init__(self, command: list[str], arguments: list[str], folder: Path) -> None:
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        with self.stdout.open("w") as out, self.stderr.open("w") as err:
            self.process = subprocess.Popen([*command, *arguments], stdout=out, stderr=err, start_new_session=True)

    def wait_for(self, happened: Callable[[], bool], seconds: float = 200) -> None:
        """Wait until something has happened while the command still runs."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"ended too early:\n{self.stderr.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.stderr.read_text()[-3000:]}"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL for the driver alone, as the out-of-memory killer does."""
        self.process.kill()
        self.process.wait()

    def result(self, seconds: float = 250) -> tuple[int, dict[str, Any], str]:
        """Exit code, RESULT and stderr."""
        self.process.wait(seconds)
        return self.process.returncode, read_result(self.stdout.read_text()), self.stderr.read_text()


@pytest.fixture
def start(command: list[str], tmp_path: Path) -> Iterator[Callable[[list[str]], Started]]:
    """Start a command; what is still running at the end of the test is killed."""
    started: list[Started] = []

    def begin(arguments: list[str]) -> Started:
        folder = tmp_path / f"output-{len(started)}"
        folder.mkdir()
        started.append(Started(command, arguments, folder))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
