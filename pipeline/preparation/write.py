"""EXECUTOR. From one staged file to one part file: features encoded, rows digested, checksums on the way."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import Column, DatasetSchema, PackedColumn
from pipeline.features import FittedFeatures
from pipeline.features.kinds import Array, Raw
from pipeline.features.repair import repaired
from pipeline.features.target import FOLD, Target
from pipeline.layout import parquet_options
from pipeline.preparation.columns import HASH, is_typed, raw_arrays
from pipeline.preparation.files import write_rows
from pipeline.preparation.fit import read_groups
from pipeline.preparation.label import LabelEncoder

_ARROW_TYPES = {"string": pa.string(), "timestamp": pa.timestamp("us")}


@dataclass(frozen=True)
class PartWriter:
    """Encodes staged files; the same object goes to every task.

    Attributes:
        labels: and weights, if there are any.
        sources: physical name of each id and kept column to the raw column it comes from.
        folder: where files go, under names of their own, until the driver moves them.
        rows_per_row_group: those of a staged file are whole multiples of it.
    """

    features: FittedFeatures
    labels: tuple[LabelEncoder, ...]
    schema: DatasetSchema
    sources: tuple[tuple[str, str], ...]
    wide: bool
    folder: str
    rows_per_row_group: int

    def __call__(self, job: tuple[str, str]) -> dict[str, Any]:
        """Encode the staged file ``job = (split, path)``; says what was written. Test rows are written raw as well."""
        split, staged = job
        url = storage.join(self.folder, split, f"part-{uuid.uuid4().hex}.parquet")
        digest, row_groups = hashlib.sha256(), []
        repairs: Counter[str] = Counter()
        tables = self._encoded(staged, split == "train", repairs)
        first = next(tables)
        read = [field.name for field in first.schema if not field.nullable]
        texts = [field.name for field in first.schema if pa.types.is_string(field.type)]
        options = parquet_options(first.column_names, read, texts)
        with storage.open_write(url) as stream:
            with pq.ParquetWriter(stream, first.schema, **options) as writer:
                for table in _chain(first, tables):
                    writer.write_table(table, row_group_size=self.rows_per_row_group)
                    for start in range(0, len(table), self.rows_per_row_group):
                        group = table.slice(start, self.rows_per_row_group)
                        row_groups.append(len(group))
                        self._feed(digest, group)
            file = stream.digest
        raw = self._write_raw(staged) if split == "test" else None
        written = {"url": url, "row_groups": row_groups, "digest": digest.hexdigest(), "raw": raw, "repairs": repairs}
        return {**written, **dataclasses.asdict(file)}

    def _encoded(self, staged: str, train: bool, repairs: Counter[str]) -> Iterator[pa.Table]:
        staged_labels = (label.staged for label in self.labels)
        names = [*staged_labels, HASH, *dict.fromkeys([*self.features.inputs, *(source for _, source in self.sources)])]
        out_of_fold = train and any(isinstance(feature, Target) for feature in self.features.features)
        for table in read_groups(staged, names):
            raw, changed = repaired(raw_arrays(table, self.features.inputs), self.features.repairs)
            repairs.update(changed)
            yield self._encode(table, {**raw, FOLD: table.column(HASH).to_numpy()} if out_of_fold else raw)

    def _encode(self, table: pa.Table, raw: Raw) -> pa.Table:
        """One row group; ``raw`` is what repairs left of it."""
        encoded = self.features.encode(raw)
        sources, labels = dict(self.sources), {label.column: label for label in self.labels}
        columns: dict[str, pa.Array] = {}
        for column in self.schema.columns:
            if column.name in sources:
                columns[column.name] = plain_column(table.column(sources[column.name]), column)
            elif column.role in ("label", "weight"):
                columns[column.name] = pa.array(labels[column.name](table))
            elif self.wide:
                columns[column.name] = _wide(encoded[column.name])
        for packed in self.schema.packed:
            columns[packed.name] = _packed(packed, encoded)
        read = {"label", "weight", *(packed.name for packed in self.schema.packed)}
        roles = {column.name: column.role for column in self.schema.columns}
        fields = [
            pa.field(name, array.type, nullable=roles.get(name, name) not in read) for name, array in columns.items()
        ]
        return pa.table(list(columns.values()), schema=pa.schema(fields))

    def _feed(self, digest: Any, table: pa.Table) -> None:
        """Add the rows' values; typed feature columns repeat what the packed ones say."""
        features = {column.name for column in self.schema.with_role("numeric", "categorical", "vector")}
        for name in table.column_names:
            if name not in features:
                digest.update(name.encode())
                _feed_column(digest, table.column(name).combine_chunks())

    def _write_raw(self, staged: str) -> dict[str, Any]:
        url = storage.join(self.folder, "raw", f"part-{uuid.uuid4().hex}.parquet")
        added = {HASH, *(label.staged for label in self.labels)}
        with storage.open_read(staged) as stream:
            names = [
                field.name for field in pq.read_schema(stream) if field.name not in added and not is_typed(field.name)
            ]
        groups = (_without_dictionaries(table.select(names)) for table in read_groups(staged, names))
        written = write_rows(url, groups, self.rows_per_row_group)
        assert written is not None
        return {"url": url, **dataclasses.asdict(written[1])}


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _without_dictionaries(table: pa.Table) -> pa.Table:
    is_coded = pa.types.is_dictionary
    fields = [field.with_type(field.type.value_type) if is_coded(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def plain_column(column: pa.ChunkedArray, schema: Column) -> pa.Array:
    """An id or kept column in the type that the schema says."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    return array.cast(_ARROW_TYPES.get(schema.dtype) or pa.from_numpy_dtype(np.dtype(schema.dtype)))


def _wide(values: Array) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    width = int(np.prod(values.shape[1:]))
    offsets = np.arange(len(values) + 1, dtype=np.int32) * width
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).reshape(-1)))


def _packed(packed: PackedColumn, encoded: dict[str, Array]) -> pa.Array:
    """The members side by side, one blob of little-endian numbers per row."""
    matrix = np.concatenate([encoded[name].reshape(len(encoded[name]), -1) for name in packed.members], axis=1)
    data = np.ascontiguousarray(matrix, dtype=np.dtype(packed.dtype).newbyteorder("<"))
    return pa.Array.from_buffers(pa.binary(data.shape[1] * data.itemsize), len(data), [None, pa.py_buffer(data)])


def _feed_column(digest: Any, array: pa.Array) -> None:
    """Validity, lengths and values, so that no two columns with different values give the same bytes."""
    if array.null_count:
        digest.update(np.packbits(pc.is_valid(array).to_numpy(zero_copy_only=False)))
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        digest.update(memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width])
        return
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        filled = pc.fill_null(array, "" if pa.types.is_string(array.type) else b"")
        digest.update(pc.binary_length(filled).to_numpy().tobytes())
        _, offsets, data = filled.buffers()
        if data is not None:
            ends = np.frombuffer(offsets, dtype=np.int32)[filled.offset : filled.offset + len(filled) + 1]
            digest.update(memoryview(data)[int(ends[0]) : int(ends[-1])])
        return
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    elif pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    digest.update(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).tobytes())
