"""ANYWHERE. How fast a dataset loads on this machine, beside the limit, and what to set: `pipeline bench loader`."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import storage
from pipeline.dataset import Dataset
from pipeline.errors import PipelineError
from pipeline.training.batches import ModelColumns
from pipeline.training.loader import WINDOW_BYTES, Loader

_ROUNDS = 5
_CACHE_BYTES = 1 << 40


@dataclass
class Measurement:
    """One way to read the split: seconds of each round, and where they went in the last one."""

    name: str
    seconds: list[float] = field(default_factory=list)
    activities: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class LoaderReport:
    """What was measured on a split; `first` is the first epoch of a process, with its checksums."""

    url: str
    split: str
    rows: int
    bytes: int
    batch_size: int
    first: float
    measurements: tuple[Measurement, ...]

    def seconds(self, name: str) -> float:
        """The median of a measurement."""
        return next(each.median for each in self.measurements if each.name == name)

    def suggestions(self) -> list[str]:
        """Settings of this machine for this split."""
        windows = {each.name: each.median for each in self.measurements if each.name.startswith("window")}
        best = min(windows, key=windows.__getitem__)
        lines = [f"fastest window: {best.removeprefix('window ')}"]
        gain = windows[best] / self.seconds("memory")
        lines.append(
            f"training.loader.cache_bytes={self.bytes} (the whole split in memory) makes later epochs {gain:.1f} times "
            "as fast"
        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values: rows/s, MB/s, share of the raw scan and seconds per activity of each measurement."""
        scan = self.seconds("raw scan")
        return {
            "dataset": self.url,
            "split": self.split,
            "rows": self.rows,
            "bytes": self.bytes,
            "first_epoch_seconds": round(self.first, 4),
            "measurements": {
                each.name: {
                    "rows_per_second": round(self.rows / each.median),
                    "megabytes_per_second": round(self.bytes / each.median / 1e6, 1),
                    "share_of_raw_scan": round(scan / each.median, 3),
                    "seconds": {name: round(value, 4) for name, value in each.activities.items()},
                }
                for each in self.measurements
            },
            "suggestions": self.suggestions(),
        }

    def render(self) -> str:
        """A table for people."""
        lines = [
            f"{self.url}, split {self.split}: {self.rows:,} rows, {self.bytes / 1e6:.1f} MB as read, "
            f"batches of {self.batch_size}, medians of {_ROUNDS} rounds",
            f"{'':<16}{'rows/s':>14}{'MB/s':>10}{'of raw scan':>13}   where the time goes (s)",
        ]
        for name, values in self.to_json()["measurements"].items():
            spent = ", ".join(f"{key} {value:.3f}" for key, value in values["seconds"].items() if value >= 0.0005)
            lines.append(
                f"{name:<16}{values['rows_per_second']:>14,}{values['megabytes_per_second']:>10,.0f}"
                f"{values['share_of_raw_scan']:>13.2f}   {spent}"
            )
        lines.append(f"first epoch, with checksums: {self.first:.3f} s")
        return "\n".join([*lines, *self.suggestions()])


def bench_loader(
    dataset: Dataset, split: str = "train", batch_size: int = 4096, progress: Callable[[str], None] = lambda line: None
) -> LoaderReport:
    """Measure shuffled loading in interleaved rounds: through windows of some sizes, from memory, and a raw scan."""
    started = time.perf_counter()
    _consume(Loader(dataset, split, global_batch_size=batch_size), dataset.manifest.rows(split))
    first = time.perf_counter() - started
    sizes = [WINDOW_BYTES >> 2, WINDOW_BYTES, WINDOW_BYTES << 2]
    loaders = {
        f"window {size >> 20} MiB": Loader(dataset, split, global_batch_size=batch_size, window_bytes=size)
        for size in sizes
    }
    loaders["memory"] = Loader(dataset, split, global_batch_size=batch_size, cache_bytes=_CACHE_BYTES)
    _consume(loaders["memory"], dataset.manifest.rows(split))
    measurements = {name: Measurement(name) for name in ["raw scan", *loaders]}
    for number in range(_ROUNDS):
        progress(f"round {number + 1} of {_ROUNDS}")
        for name, measurement in measurements.items():
            _round(measurement, dataset, split, batch_size, loaders.get(name))
    columns = ModelColumns(dataset).fields
    row_bytes = sum(column.row_bytes for column in columns)
    rows = dataset.manifest.rows(split)
    return LoaderReport(dataset.url, split, rows, rows * row_bytes, batch_size, first, tuple(measurements.values()))


def _round(measurement: Measurement, dataset: Dataset, split: str, batch_size: int, loader: Loader | None) -> None:
    rows = dataset.manifest.rows(split)
    before = loader.timings.seconds() if loader else {}
    started = time.perf_counter()
    _consume(loader if loader else raw_scan(dataset, split, batch_size), rows)
    measurement.seconds.append(time.perf_counter() - started)
    if loader:
        measurement.activities = {name: value - before[name] for name, value in loader.timings.seconds().items()}


def _consume(batches: Any, rows: int) -> None:
    seen = sum(batch.rows if hasattr(batch, "rows") else len(batch[0]) for batch in batches)
    if seen != rows:
        raise PipelineError(f"{seen} rows came out of an epoch; expected {rows}; report this")


def raw_scan(dataset: Dataset, split: str, batch_size: int) -> Iterator[Sequence[torch.Tensor]]:
    """The same columns as tensors, in file order, as fast as pyarrow gives them: the limit of any loader above it."""
    fields = ModelColumns(dataset).fields
    names = [field_.name for field_ in fields]
    warnings.filterwarnings("ignore", message="The given buffer is not writable")  # nobody writes to it
    for part in dataset.manifest.splits[split]:
        with storage.open_read(storage.join(dataset.url, part.path)) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size, columns=names, use_threads=False):
                yield [_tensor(batch.column(name), field_.dtype) for name, field_ in zip(names, fields, strict=True)]


def _tensor(column: pa.Array, dtype: str) -> torch.Tensor:
    """A view of an arrow column, a matrix if it is a packed one."""
    if pa.types.is_binary(column.type):
        first, last = column.buffers()[1].slice(4 * column.offset), len(column)
        offsets = np.frombuffer(first, np.int32, last + 1)
        data = column.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        return torch.frombuffer(data, dtype=getattr(torch, dtype)).reshape(len(column), -1)
    width = column.type.bit_width // 8
    data = column.buffers()[1].slice(column.offset * width, len(column) * width)
    matrix = torch.frombuffer(data, dtype=getattr(torch, dtype))
    return matrix.reshape(len(column), -1) if pa.types.is_fixed_size_binary(column.type) else matrix
