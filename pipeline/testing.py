"""ANYWHERE. For tests of programs that use this package: a small published dataset without Spark.

The dataset lies on disk exactly as preparation publishes it, so loaders, trainers and predictors
cannot tell the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import (
    MANIFEST_FORMAT,
    Accounting,
    Column,
    Dataset,
    DatasetSchema,
    Manifest,
    PackedColumn,
    PartFile,
    commit_version,
    content_id,
    version_url,
)
from pipeline.layout import parquet_options

Values = Mapping[str, npt.NDArray[Any]]
LabelType = Literal["binary", "multiclass", "regression"] | None


def tiny_dataset(
    folder: str,
    rows: int | Mapping[str, int] = 1000,
    numeric: int = 4,
    categorical: int = 2,
    seed: int = 0,
    *,
    vectors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    label_type: LabelType = "binary",
    labels: Sequence[str] = ("label",),
    classes: Sequence[str] = ("a", "b", "c"),
    weight: str | None = None,
    rows_per_row_group: int = 64,
    rows_per_file: int = 256,
    wide: bool = True,
    statistics: Mapping[str, Any] | None = None,
) -> Dataset:
    """Publish a random dataset whose label can be learned from its features.

    Args:
        folder: url of the dataset; several calls with different arguments publish several versions.
        rows: rows per split; a single number means so many train rows and a quarter of it for each other split.
        numeric: float32 columns ``n0``, ``n1``...
        categorical: int32 columns ``c0``, ``c1``... with 8, 9... ids.
        seed: of the values.
        vectors: name to (dtype, shape) of vector columns.
        label_type: binary, multiclass or regression; None with no ``labels``.
        labels: names of the label columns.
        classes: names of the classes of a multiclass label.
        weight: name of a column of row weights, whole numbers from 0 to 3; by default there is none.
        rows_per_row_group: of every row group but the last of a file.
        rows_per_file: of every file but the last of a split.
        wide: also write typed feature columns.
        statistics: what stands for the fitted features in the manifest.

    Returns:
        The dataset. Its id column ``id`` counts from 0 in every split, in file order.
    """
    if isinstance(rows, int):
        rows = {"train": rows, "validation": rows // 4, "test": rows // 4}
    schema = tiny_schema(numeric, categorical, vectors or {}, label_type, tuple(classes), labels, weight)
    parts_of = {}
    for number, (split, count) in enumerate(rows.items()):
        values = tiny_values(schema, count, np.random.default_rng([seed, number]))
        table = encoded_table(schema, values, wide)
        parts_of[split] = _cut_into_parts(table, rows_per_row_group, rows_per_file)
    statistics = dict(statistics or {"label": {"type": label_type, "classes": list(schema.classes)}})
    digests = {split: [part for _, part in parts] for split, parts in parts_of.items()}
    identity = content_id(schema, {"tiny": seed}, statistics, digests)
    splits = {
        split: tuple(
            _write(folder, f"versions/{identity}/{split}/part-{number:05d}.parquet", *part)
            for number, part in enumerate(parts)
        )
        for split, parts in parts_of.items()
    }
    return publish(folder, _manifest(identity, schema, splits, statistics, seed))


def _manifest(
    identity: str,
    schema: DatasetSchema,
    splits: Mapping[str, tuple[PartFile, ...]],
    statistics: Mapping[str, Any],
    seed: int,
) -> Manifest:
    """Of a version that was made from no inputs."""
    total = sum(part.rows for parts in splits.values() for part in parts)
    return Manifest(
        content_id=identity,
        schema=schema,
        splits=splits,
        class_counts={},
        statistics=statistics,
        accounting=Accounting(total, total, 0, 0),
        semantic={"tiny": seed, **_sections(schema)},
        request=storage.sha256_of({"tiny": identity}),
        inputs={},
        extra_files={},
        versions={"pyarrow": pa.__version__},
    )


def _sections(schema: DatasetSchema) -> dict[str, Any]:
    """What a configuration says of such columns, for `pipeline.train`."""
    features: dict[str, dict[str, Any]] = {name: {"type": "numeric", "scale": "none"} for name in schema.numeric}
    features |= {name: {"type": "hashed", "buckets": ids} for name, ids in schema.cardinalities.items()}
    vectors = schema.with_role("vector")
    features |= {each.name: {"type": "vector", "shape": list(each.shape), "dtype": each.dtype} for each in vectors}
    weight = next((column.name for column in schema.with_role("weight")), None)
    label = {"column": list(schema.labels), "type": schema.label_type, "weight": weight} if schema.labels else None
    return {"features": features, "label": label}


def publish(folder: str, manifest: Manifest) -> Dataset:
    """Write the manifest of a version whose files are in place, and make it the newest."""
    data = storage.format_json(*MANIFEST_FORMAT, manifest.to_json())
    storage.write_bytes(storage.join(version_url(folder, manifest.content_id), "manifest.json"), data)
    commit_version(folder, manifest.content_id, hashlib.sha256(data).hexdigest())
    return Dataset(folder, manifest)


def tiny_schema(
    numeric: int,
    categorical: int,
    vectors: Mapping[str, tuple[str, tuple[int, ...]]],
    label_type: LabelType,
    classes: tuple[str, ...],
    labels: Sequence[str] = ("label",),
    weight: str | None = None,
) -> DatasetSchema:
    """The schema of `tiny_dataset`."""
    features = [Column(f"n{i}", "float32", "numeric") for i in range(numeric)]
    features += [Column(f"c{i}", "int32", "categorical", cardinality=8 + i) for i in range(categorical)]
    features += [Column(name, dtype, "vector", shape=shape) for name, (dtype, shape) in vectors.items()]
    dtypes = sorted({column.dtype for column in features})
    return DatasetSchema(
        columns=(
            Column("id", "int64", "id"),
            *(Column(name, "int64" if label_type == "multiclass" else "float32", "label") for name in labels),
            *(Column(name, "float32", "weight") for name in [weight] if name is not None),
            *features,
        ),
        packed=tuple(
            PackedColumn(f"_packed_{dtype}", dtype, tuple(c.name for c in features if c.dtype == dtype))
            for dtype in dtypes
        ),
        label_type=label_type,
        classes=classes if label_type == "multiclass" else (),
    )


def tiny_values(schema: DatasetSchema, count: int, random: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    """Random columns for `tiny_schema`; labels depend on all numeric and categorical columns, every other one on
    their opposite.
    """
    values: dict[str, npt.NDArray[Any]] = {"id": np.arange(count)}
    score = random.normal(0, 0.5, count)
    for number, column in enumerate(schema.with_role("numeric", "categorical", "vector")):
        if column.role == "numeric":
            values[column.name] = random.normal(size=count).astype("float32")
            score += values[column.name] * (1.0 + 0.5 * number) * (-1) ** number
        elif column.role == "categorical":
            values[column.name] = random.integers(1, column.cardinality or 2, count).astype("int32")
            score += np.sin(values[column.name] + number)
        else:
            numbers = random.integers(0, 256, (count, column.width))
            values[column.name] = numbers.astype(column.dtype)
    for number, name in enumerate(schema.labels):
        values[name] = _label(score * (-1) ** number, schema)
    for column in schema.with_role("weight"):
        values[column.name] = random.integers(0, 4, count).astype("float32")
    return values


def _label(score: npt.NDArray[Any], schema: DatasetSchema) -> npt.NDArray[Any]:
    if schema.label_type == "binary":
        return (score > 0).astype("float32")
    if schema.label_type == "regression":
        return score.astype("float32")
    edges = np.linspace(-2, 2, len(schema.classes) + 1)[1:-1]
    return np.searchsorted(edges, score).astype("int64")


def encoded_table(schema: DatasetSchema, values: Values, wide: bool = True) -> pa.Table:
    """Columns in the layout of part files: ids, label, typed features if wide, packed columns.

    Args:
        schema: names, roles and packing.
        values: column name to array; vectors as (rows, width) matrices.
        wide: also typed feature columns.
    """
    columns: dict[str, pa.Array] = {}
    for column in schema.columns:
        if column.role in ("id", "label", "weight", "kept"):
            columns[column.name] = pa.array(values[column.name])
        elif wide and column.role == "vector":
            columns[column.name] = _list_array(np.ascontiguousarray(values[column.name]))
        elif wide:
            columns[column.name] = pa.array(values[column.name])
    for packed in schema.packed:
        columns[packed.name] = _packed_array(np.column_stack([values[name] for name in packed.members]))
    read = {
        *(column.name for column in schema.with_role("label", "weight")),
        *(packed.name for packed in schema.packed),
    }
    fields = [pa.field(name, array.type, nullable=name not in read) for name, array in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _list_array(matrix: npt.NDArray[Any]) -> pa.Array:
    offsets = np.arange(len(matrix) + 1, dtype="int32") * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1)))


def _packed_array(matrix: npt.NDArray[Any]) -> pa.Array:
    rows, width = matrix.shape
    data = np.ascontiguousarray(matrix, dtype=matrix.dtype.newbyteorder("<"))
    return pa.Array.from_buffers(pa.binary(width * matrix.itemsize), rows, [None, pa.py_buffer(data)])


def _cut_into_parts(table: pa.Table, rows_per_row_group: int, rows_per_file: int) -> list[tuple[pa.Table, PartFile]]:
    """Each file's rows, with a part file that lacks only what writing finds out."""
    parts = []
    for start in range(0, table.num_rows, rows_per_file):
        piece = table.slice(start, rows_per_file)
        groups = tuple(
            min(rows_per_row_group, piece.num_rows - first) for first in range(0, piece.num_rows, rows_per_row_group)
        )
        parts.append((piece, PartFile("", 0, 0, "", groups, _digest(piece))))
    return parts


def _digest(table: pa.Table) -> str:
    """Of the values, however they will be stored."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _write(folder: str, path: str, table: pa.Table, part: PartFile) -> PartFile:
    read = [field.name for field in table.schema if not field.nullable]
    with storage.open_write(storage.join(folder, path)) as stream:
        pq.write_table(table, stream, row_group_size=part.row_groups[0], **parquet_options(table.column_names, read))
    digest = stream.digest
    return PartFile(path, digest.bytes, digest.crc32, digest.sha256, part.row_groups, part.digest)
