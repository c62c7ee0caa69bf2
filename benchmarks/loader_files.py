"""The rows that loaders are measured with, in the files that each of them likes best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import Accounting, Column, Dataset, DatasetSchema, Manifest, PackedColumn, PartFile
from pipeline.layout import parquet_options, rows_per_row_group
from pipeline.testing import encoded_table, publish

FILES = 8


@dataclass(frozen=True)
class Shape:
    """Rows to load: arrays by name, as (dtype, shape of a row)."""

    rows: int
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]

    @property
    def row_bytes(self) -> int:
        return 4 + sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in self.arrays.values())


SHAPES = {
    "tabular": Shape(5_000_000, {"numeric": ("float32", (28,)), "categorical": ("int32", (8,))}),
    "vectors": Shape(400_000, {"x": ("float32", (512,))}),
    "images": Shape(1_000_000, {"x": ("uint8", (28, 28))}),
}


def write_files(folder: Path, shape: Shape) -> None:
    """The rows as arrays, as a published dataset and for stock Petastorm; nothing if they are there already."""
    if (folder / "complete").exists():
        return
    arrays = write_raw(folder, shape)
    write_ours(folder, shape, arrays)
    write_stock(folder, shape, arrays)
    (folder / "complete").touch()


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
