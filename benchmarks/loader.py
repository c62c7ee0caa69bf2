"""Shuffled batches of 4,096 rows as torch tensors: this package's loader beside its peers and its limits.

    python -m benchmarks.loader [--shape tabular] [--rounds 5] [--folder FOLDER [--write-only]]

Three shapes of rows; every contender reads the same rows from the layout that suits it, in a process of its own with
one reader beside the consumer. Rounds are interleaved, each one starts with another contender, and gives each as many
whole epochs as begin within a second; medians are reported. Every epoch is checked: the row numbers that came out add
up to those that went in. An epoch that takes more than a minute is stopped, which the table says, and whoever needs
more than 20 s for one is measured twice only. Peers get an epoch of fewer rows, because it takes them long to write
more. They are installed into environments below the user's cache folder; what cannot be installed is reported with
the reason. `--folder` keeps the files for another call, so that writing them is no part of the measurement. `--only`
measures some contenders; what an earlier call has found of the others on the same rows stays in the results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.loader_contenders import CONTENDERS
from benchmarks.loader_files import SHAPES, Shape, write_files
from benchmarks.results_file import RESULTS, Goal, document, keep, kept, machine, table, three_digits

BATCH_SIZE = 4096
EPOCH_LIMIT_SECONDS = 60
ROUND_SECONDS = 1
SLOW_SECONDS, SLOW_ROUNDS = 20, 2
HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spark-torch-pipeline" / "benchmarks"
TORCH = "torch==2.13.0"
PEERS = {
    "mosaic": "mosaicml-streaming",
    "huggingface": "datasets",
    "huggingface map": "datasets",
    "webdataset": "webdataset",
}
PEER_ROWS = {"mosaic": 250_000, "huggingface": 500_000, "huggingface map": 500_000, "webdataset": 100_000}
OURS, SCAN, TENSORS = "ours", "raw scan", "tensors"
STOCK = ("petastorm wide", "petastorm list")


def environment(name: str) -> tuple[str | None, str]:
    """The Python of a contender's environment, made if need be; or None, and why there is none."""
    if name not in PEERS:
        return sys.executable, ""
    folder = CACHE / PEERS[name]
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return str(python), ""
    print(f"installing {PEERS[name]} into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", TORCH, PEERS[name]]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return None, "not installed: pip took more than 900 s"
    if finished.returncode:
        return None, f"not installed: {(finished.stderr.strip().splitlines() or ['pip failed'])[-1]}"
    (folder / "complete").touch()
    return str(python), ""


@dataclass
class Contest:
    """A contender's process and what it did.

    Attributes:
        rows: of its epoch.
        first: seconds of its first epoch, which is kept apart if it does not take long.
        seconds: per row, of each further round; ``cpu`` likewise.
        delivered: rows of the last round; fewer than ``rows`` if it was stopped.
        lost_epochs: rounds in which rows were missing.
        earlier: measured by an earlier call, that named other contenders.
    """

    name: str
    rows: int
    process: subprocess.Popen[str] | None = None
    problem: str = ""
    version: str = ""
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    delivered: int = 0
    lost_epochs: int = 0
    earlier: bool = False

    def start(self, folder: Path) -> None:
        """Start the process; its own files are written before it answers."""
        python, self.problem = environment(self.name)
        if python is None:
            return
        arguments = [python, str(HERE / "loader_contenders.py"), self.name, str(folder), str(self.rows)]
        environ = {**os.environ, "PYTHONPATH": str(HERE.parent)} if python == sys.executable else dict(os.environ)
        with self._log(folder).open("w") as log:
            self.process = subprocess.Popen(
                [*arguments, str(BATCH_SIZE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environ,
            )
        ready, _, self.version = self._answer().partition(" ")
        if ready != "ready":
            self._fail(folder)

    def load(self, number: int, folder: Path) -> None:
        """Let it load for a round; the first one is one epoch."""
        if self.process is None or self.process.stdin is None:
            return
        if self.first > SLOW_SECONDS and len(self.seconds) >= SLOW_ROUNDS:
            return
        seconds = 0 if number == 0 else ROUND_SECONDS
        try:
            self.process.stdin.write(f"{number} {seconds} {EPOCH_LIMIT_SECONDS}\n")
            self.process.stdin.flush()
            result = json.loads(self._answer())
        except (ValueError, BrokenPipeError):
            self._fail(folder)
            return
        self._take(result, number == 0)

    def _take(self, result: dict[str, Any], first: bool) -> None:
        self.delivered = result["rows"] // result["epochs"]
        if not result["stopped"] and result["rows"] != self.rows * result["epochs"]:
            self.lost_epochs += 1  # stock Petastorm loses whole epochs now and then
            return
        if not result["stopped"] and result["total"] != self.rows * (self.rows - 1) / 2 * result["epochs"]:
            self.problem = "rows are missing or repeated"
        if first:
            self.first = result["seconds"]
        if not first or self.first > SLOW_SECONDS:
            self.seconds.append(result["seconds"] / result["rows"])
            self.cpu.append(result["cpu"] / result["rows"])

    def stop(self) -> None:
        """End the process."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            self.process.kill()
            self.process.wait()

    def _log(self, folder: Path) -> Path:
        return folder / f"{self.name.replace(' ', '-')}.log"

    def _answer(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _fail(self, folder: Path) -> None:
        lines = self._log(folder).read_text().strip().splitlines()
        self.stop()
        self.process, self.problem = None, f"failed: {lines[-1] if lines else 'no output'}"

    @property
    def rate(self) -> float:
        """Million rows per second, the median of the rounds."""
        return 1 / statistics.median(self.seconds) / 1e6 if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """All that was measured."""
        left_out = {"name", "process"}
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        return {"rows_per_second": self.rate * 1e6, **values}


def contest(name: str, shape: Shape, rounds: int, only: list[str], folder: Path) -> list[Contest]:
    """All contenders on one shape, in interleaved rounds."""
    contests = [Contest(each, min(shape.rows, PEER_ROWS.get(each, shape.rows))) for each in only]
    try:
        for each in contests:
            each.start(folder)
        for number in range(rounds + 1):
            start = number * 5 % len(contests)
            for each in contests[start:] + contests[:start]:
                each.load(number, folder)
            print(f"{name}: round {number} of {rounds}", flush=True)
    finally:
        for each in contests:
            each.stop()
    return contests


def page(name: str, sections: Mapping[str, Any]) -> list[str]:
    """What was measured of one shape."""
    shape, contests = Shape(sections["shape_rows"], SHAPES[name].arrays), contests_in(sections)
    rates = {each.name: each.rate for each in contests}
    heading = f"Loading shuffled batches of {sections['batch_size']:,} rows: {name}"
    lines = [f"{shape.rows:,} rows of {shape.row_bytes} bytes.", "", *_table(shape, contests, rates)]
    return document(heading, sections["machine"], goals(name, rates), lines)


PAGES = {f"loader-{name}": partial(page, name) for name in SHAPES}


def _table(shape: Shape, contests: Sequence[Contest], rates: Mapping[str, float]) -> list[str]:
    head = ["contender", "M rows/s", "MB/s", "of raw scan", "of tensors", "CPU s per M rows", "first epoch s", "rows"]
    rows = []
    for each in contests:
        label = f"{each.name} ({each.version})" if each.version else each.name
        if not each.seconds:
            rows.append([label, each.problem or "no full epoch", *[""] * 6])
            continue
        of_limits = [three_digits(each.rate / rates[limit]) if rates.get(limit) else "" for limit in (SCAN, TENSORS)]
        rows.append(
            [
                label,
                three_digits(each.rate),
                three_digits(each.rate * shape.row_bytes),
                *of_limits,
                f"{statistics.median(each.cpu) * 1e6:.3f}",
                f"{each.first:.2f}",
                _rows_of(each),
            ]
        )
    return table(head, rows)


def _rows_of(each: Contest) -> str:
    """How many of them came, and what was not as it should be."""
    said = [f"{each.rows:,}"]
    said += [f"stopped after {each.delivered:,}"] if each.delivered < each.rows else []
    said += [f"lost {each.lost_epochs} epochs"] if each.lost_epochs else []
    said += ["in another call"] if each.earlier else []
    return ", ".join([*said, *([each.problem] if each.problem else [])])


def goals(name: str, rates: Mapping[str, float]) -> list[Goal]:
    """What the loader is meant to reach on a shape, and what it reached."""

    def ratio(a: str, b: str) -> float | None:
        return rates[a] / rates[b] if rates.get(a) and rates.get(b) else None

    stock = max(STOCK, key=lambda each: rates.get(each, 0))
    peers = {each: rate for each, rate in rates.items() if each in (*PEERS, *STOCK, "petastorm rows")}
    peer = max(peers, key=peers.__getitem__, default="")
    return [
        Goal("of the raw scan", ratio(OURS, SCAN), 0.9),
        Goal(f"times stock BatchedDataLoader ({stock}), shuffled", ratio(OURS, stock), 10 if name == "tabular" else 5),
        Goal(f"times the fastest peer ({peer})", ratio(OURS, peer), 1),
        Goal("from memory, of gathering from tensors", ratio("ours cached", TENSORS), 0.9),
    ]


def contests_in(sections: Mapping[str, Any]) -> list[Contest]:
    """What was kept, in the order of contenders."""
    known = {each.name for each in fields(Contest)}
    found = sections.get("contenders", {})
    return [
        Contest(name, **{key: value for key, value in found[name].items() if key in known})
        for name in CONTENDERS
        if name in found
    ]


def measure(name: str, options: argparse.Namespace) -> None:
    """Run one shape and keep what was found, beside what an earlier call found of other contenders on the same rows."""
    shape = Shape(int(SHAPES[name].rows * options.scale), SHAPES[name].arrays)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="loader-")) / name
    only = options.only or list(CONTENDERS)
    try:
        write_files(folder, shape)
        if options.write_only:
            contest(name, shape, -1, only, folder)
            return
        before = machine()
        contests = contest(name, shape, options.rounds, only, folder)
    finally:
        if not options.folder:
            shutil.rmtree(folder.parent, ignore_errors=True)
    output, earlier = Path(options.output), kept(f"loader-{name}", Path(options.output))
    values = {each.name: each.to_json() for each in contests}
    if earlier.get("shape_rows") == shape.rows:
        old = {each: {**found, "earlier": True} for each, found in earlier["contenders"].items()}
        values = {**old, **values}
    sections = {"machine": before, "batch_size": BATCH_SIZE, "shape_rows": shape.rows, "contenders": values}
    keep(f"loader-{name}", sections, PAGES[f"loader-{name}"], output)


def main() -> None:
    """Measure all shapes, or those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the row counts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--only", action="append", choices=list(CONTENDERS))
    parser.add_argument("--folder", help="where files are kept for the next call")
    parser.add_argument("--write-only", action="store_true", help="write the files, measure nothing")
    parser.add_argument("--output", default=str(RESULTS))
    options = parser.parse_args()
    for name in options.shape or SHAPES:
        measure(name, options)


if __name__ == "__main__":
    main()
