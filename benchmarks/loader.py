"""Shuffled batches of 4,096 rows as torch tensors: this package's loader beside its peers and its limits.

    python -m benchmarks.loader [--scale 1.0] [--rounds 5] [--output benchmarks/results/loader]

Three shapes of rows; every contender reads the same rows from the layout that suits it, in a process of its own with
one reader beside the consumer. Rounds are interleaved, so that a noisy machine is noisy for all; medians are
reported. Every full epoch is checked: the row numbers that came out add up to those that went in. Slow contenders
read only the first rows of an epoch, which the table says. Peers are installed into environments below the user's
cache folder; what cannot be installed is reported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import Accounting, Column, Dataset, DatasetSchema, Manifest, PackedColumn, PartFile
from pipeline.layout import parquet_options, rows_per_row_group
from pipeline.testing import encoded_table, publish

BATCH_SIZE = 4096
FILES = 8
HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spark-torch-pipeline" / "benchmarks"
TORCH = "torch==2.13.0"
PEERS = {"mosaic": "mosaicml-streaming", "huggingface": "datasets", "webdataset": "webdataset"}
CAPS = {
    "petastorm wide": 200_000,
    "petastorm list": 200_000,
    "petastorm rows": 10_000,
    "mosaic": 100_000,
    "huggingface": 100_000,
    "webdataset": 20_000,
}
"""Rows of an epoch that slow contenders read; those of the peers are also all that is written for them."""


@dataclass(frozen=True)
class Shape:
    """Rows to load: arrays by name, as (dtype, shape of a row)."""

    rows: int
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]

    @property
    def row_bytes(self) -> int:
        return 4 + sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in self.arrays.values())


SHAPES = {
    "tabular": Shape(2_000_000, {"numeric": ("float32", (28,)), "categorical": ("int32", (8,))}),
    "vectors": Shape(150_000, {"x": ("float32", (512,))}),
    "images": Shape(250_000, {"x": ("uint8", (28, 28))}),
}


def write_raw(folder: Path, shape: Shape) -> dict[str, np.ndarray]:
    """The rows as .npy files; the label is the number of the row."""
    (folder / "raw").mkdir(parents=True)
    random = np.random.default_rng(0)
    arrays = {"label": np.arange(shape.rows, dtype=np.float32)}
    for name, (dtype, row) in shape.arrays.items():
        values = (
            random.normal(size=(shape.rows, *row))
            if dtype == "float32"
            else random.integers(0, 200, (shape.rows, *row))
        )
        arrays[name] = values.astype(dtype)
    for name, array in arrays.items():
        np.save(folder / "raw" / f"{name}.npy", array)
    return arrays


def write_ours(folder: Path, shape: Shape, arrays: Mapping[str, np.ndarray]) -> None:
    """The rows as a published dataset, without the wide columns."""
    columns, packed, values = [Column("label", "float32", "label")], [], {"label": arrays["label"]}
    for name, (dtype, row) in shape.arrays.items():
        matrix = arrays[name].reshape(shape.rows, -1)
        if name in ("numeric", "categorical"):
            members = [Column(f"{name}{i}", dtype, name, cardinality=200) for i in range(matrix.shape[1])]
            values |= {column.name: matrix[:, i] for i, column in enumerate(members)}
        else:
            members = [Column(name, dtype, "vector", shape=row)]
            values[name] = matrix
        columns += members
        packed.append(PackedColumn(f"_packed_{dtype}", dtype, tuple(column.name for column in members)))
    schema = DatasetSchema(tuple(columns), tuple(packed), "regression")
    group = rows_per_row_group(shape.rows, shape.row_bytes)
    parts = []
    for number, rows in enumerate(np.array_split(np.arange(shape.rows), FILES)):
        part = slice(rows[0], rows[-1] + 1)
        table = encoded_table(schema, {name: array[part] for name, array in values.items()}, wide=False)
        path = f"versions/benchmark/train/part-{number:05d}.parquet"
        with storage.open_write(str(folder / "dataset" / path)) as stream:
            options = parquet_options(table.column_names, table.column_names)
            pq.write_table(table, stream, row_group_size=group, **options)
        digest = stream.digest
        groups = tuple(min(group, len(rows) - first) for first in range(0, len(rows), group))
        parts.append(PartFile(path, digest.bytes, digest.crc32, digest.sha256, groups, str(number)))
    accounting = Accounting(shape.rows, shape.rows, 0, 0)
    publish(
        str(folder / "dataset"),
        Manifest("benchmark", schema, {"train": tuple(parts)}, {}, {}, accounting, {}, "", {}, {}, {}),
    )
    Dataset.open(str(folder / "dataset"))


def write_stock(folder: Path, shape: Shape, arrays: Mapping[str, np.ndarray]) -> None:
    """The rows for stock Petastorm: one column per number, and one list column per array; 25,000 rows a row group."""
    for layout in ("wide", "list"):
        columns: dict[str, pa.Array] = {"label": pa.array(arrays["label"])}
        for name in shape.arrays:
            matrix = arrays[name].reshape(shape.rows, -1)
            if layout == "wide":
                columns |= {f"{name}{i}": pa.array(np.ascontiguousarray(matrix[:, i])) for i in range(matrix.shape[1])}
            else:
                offsets = np.arange(shape.rows + 1, dtype=np.int32) * matrix.shape[1]
                columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1)))
        table = pa.table(columns)
        (folder / layout).mkdir()
        for number, rows in enumerate(np.array_split(np.arange(shape.rows), FILES)):
            part = table.slice(rows[0], len(rows))
            path = folder / layout / f"part-{number:05d}.parquet"
            pq.write_table(part, path, row_group_size=25_000, compression="none", use_dictionary=False)


def environment(name: str) -> tuple[str | None, str]:
    """The Python of a contender's environment, made if need be; or None, and why there is none."""
    if name not in PEERS:
        return sys.executable, ""
    folder = CACHE / name
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
    """A contender's process and what it did."""

    name: str
    rows: int
    cap: int
    process: subprocess.Popen[str] | None = None
    problem: str = ""
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    lost_epochs: int = 0

    def start(self, folder: Path) -> None:
        """Start the process; its own files are written before it answers."""
        python, self.problem = environment(self.name)
        if python is None:
            return
        written = min(self.rows, CAPS.get(self.name, self.rows)) if self.name in PEERS else self.rows
        arguments = [python, str(HERE / "loader_contenders.py"), self.name, str(folder), str(written), str(BATCH_SIZE)]
        environ = {**os.environ, "PYTHONPATH": str(HERE.parent)} if python == sys.executable else dict(os.environ)
        with open(folder / f"{self.name.replace(' ', '-')}.log", "w") as log:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )
        if self._answer() != "ready":
            self._fail(folder)

    def epoch(self, number: int, folder: Path) -> None:
        """Let it load one epoch; the first one is kept apart."""
        if self.process is None or self.process.stdin is None:
            return
        self.process.stdin.write(f"{number} {self.cap}\n")
        self.process.stdin.flush()
        try:
            result = json.loads(self._answer())
        except ValueError:
            self._fail(folder)
            return
        if result["rows"] < self.cap:
            self.lost_epochs += 1  # stock Petastorm loses whole epochs now and then
            return
        if self.cap == self.rows and result["total"] != self.rows * (self.rows - 1) / 2:
            self.problem = "rows are missing or repeated"
        if number == 0:
            self.first = result["seconds"]
        else:
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

    def _answer(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _fail(self, folder: Path) -> None:
        lines = (folder / f"{self.name.replace(' ', '-')}.log").read_text().strip().splitlines()
        self.stop()
        self.process, self.problem = None, f"failed: {lines[-1] if lines else 'no output'}"

    @property
    def rate(self) -> float:
        """Million rows per second, the median of the rounds."""
        return 1 / statistics.median(self.seconds) / 1e6 if self.seconds else 0.0


def contest(name: str, shape: Shape, rounds: int, only: list[str], folder: Path) -> list[Contest]:
    """All contenders on one shape, in interleaved rounds."""
    arrays = write_raw(folder, shape)
    write_ours(folder, shape, arrays)
    write_stock(folder, shape, arrays)
    del arrays
    contests = [Contest(each, shape.rows, min(shape.rows, CAPS.get(each, shape.rows))) for each in only]
    try:
        for each in contests:
            each.start(folder)
        for number in range(rounds + 1):
            for each in contests:
                each.epoch(number, folder)
            print(f"{name}: round {number} of {rounds}", flush=True)
    finally:
        for each in contests:
            each.stop()
    return contests


def table(name: str, shape: Shape, contests: list[Contest]) -> list[str]:
    """Markdown of one shape."""
    rates = {each.name: each.rate for each in contests}
    lines = [
        f"## {name}: {shape.rows:,} rows of {shape.row_bytes} bytes",
        "",
        "| contender | M rows/s | MB/s | of raw scan | of tensors | CPU s per M rows | first epoch s | rows read |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in contests:
        if not each.seconds:
            lines.append(f"| {each.name} | {each.problem or 'no full epoch'} | | | | | | |")
            continue
        scan, tensors = rates.get("raw scan", 0), rates.get("tensors", 0)
        read = "all" if each.cap == each.rows else f"{each.cap:,}"
        read += f", lost {each.lost_epochs} epochs" if each.lost_epochs else ""
        lines.append(
            f"| {each.name} | {each.rate:.3f} | {each.rate * shape.row_bytes:.0f} "
            f"| {each.rate / scan if scan else 0:.2f} | {each.rate / tensors if tensors else 0:.2f} "
            f"| {statistics.median(each.cpu) * 1e6:.3f} | {each.first:.2f} "
            f"| {read} {each.problem} |"
        )
    return [*lines, "", *goals(rates), ""]


def goals(rates: Mapping[str, float]) -> list[str]:
    """What the loader is meant to reach, and what it reached."""

    def ratio(a: str, b: str) -> str:
        return f"{rates[a] / rates[b]:.2f}" if rates.get(a) and rates.get(b) else "unknown"

    stock = max(("petastorm wide", "petastorm list"), key=lambda each: rates.get(each, 0))
    return [
        f"* of the raw scan: {ratio('ours', 'raw scan')} (goal 0.9)",
        f"* times stock BatchedDataLoader ({stock}), shuffled: {ratio('ours', stock)} (goal 10 on tabular, else 5)",
        f"* from memory, of gathering from tensors: {ratio('ours cached', 'tensors')} (goal 0.9)",
    ]


def machine() -> str:
    """The machine in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    python = platform.python_version()
    return f"{platform.system()} {platform.machine()}, {cpu}, {os.cpu_count()} cores, load {load}, Python {python}"


def main() -> None:
    """Run it all and write the results."""
    from benchmarks.loader_contenders import CONTENDERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the row counts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--only", action="append", choices=list(CONTENDERS))
    parser.add_argument("--output", default=str(HERE / "results" / "loader"))
    options = parser.parse_args()
    lines = ["# Loading shuffled batches of 4,096 rows", "", machine(), ""]
    values = {}
    for name in options.shape or SHAPES:
        shape = Shape(int(SHAPES[name].rows * options.scale), SHAPES[name].arrays)
        folder = Path(tempfile.mkdtemp(prefix="loader-"))
        try:
            contests = contest(name, shape, options.rounds, options.only or list(CONTENDERS), folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        lines += table(name, shape, contests)
        values[name] = {
            each.name: {"rows_per_second": each.rate * 1e6, "first": each.first, "seconds_per_row": each.seconds}
            | {
                "cpu_seconds_per_row": each.cpu,
                "rows": each.cap,
                "lost_epochs": each.lost_epochs,
                "problem": each.problem,
            }
            for each in contests
        }
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{options.output}.md").write_text("\n".join(lines) + "\n")
        result = {"machine": machine(), "batch_size": BATCH_SIZE, "shapes": values}
        Path(f"{options.output}.json").write_text(json.dumps(result, indent=1) + "\n")
        print("\n".join(lines[-len(contests) - 9 :]), flush=True)


if __name__ == "__main__":
    main()
