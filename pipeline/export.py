"""ANYWHERE. A dataset as plain wide Parquet, with named typed columns, for tools that know nothing of packed ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.dataset import Dataset, DatasetSchema, PartFile
from pipeline.errors import OutputError, StorageError


def export_dataset(dataset: Dataset, output: str, splits: Sequence[str] | None = None) -> dict[str, int]:
    """Write ``<output>/<split>/part-*.parquet``: ids, label, one typed column per feature, kept columns.

    Works for datasets published with ``wide: false`` too: what is missing is unpacked.

    Returns:
        The rows written of each split.

    Raises:
        OutputError: something is there already.
        StorageError: a part file is not what the manifest says.
    """
    if storage.list_names(output):
        raise OutputError(f"{output} is not empty; expected a new folder; choose another one")
    rows = {}
    for split in splits or dataset.manifest.splits:
        parts = dataset.manifest.splits[split]
        for number, part in enumerate(parts):
            _export_file(dataset, part, storage.join(output, split, f"part-{number:05d}.parquet"))
        rows[split] = dataset.manifest.rows(split)
    return rows


def _export_file(dataset: Dataset, part: PartFile, target: str) -> None:
    source = storage.join(dataset.url, part.path)
    digest = storage.digest_file(source, deep=False)
    if (digest.bytes, digest.crc32) != (part.bytes, part.crc32):
        raise StorageError(f"{source} is corrupt; expected crc32 {part.crc32:08x}; restore it or publish again")
    with storage.open_write(target) as stream, storage.open_read(source) as opened:
        writer = None
        for table in wide_tables(pq.ParquetFile(opened), dataset.schema):
            writer = writer or pq.ParquetWriter(stream, table.schema, compression="snappy")
            writer.write_table(table)
        if writer is not None:
            writer.close()


def wide_tables(file: pq.ParquetFile, schema: DatasetSchema) -> Iterator[pa.Table]:
    """Each row group of a part file with one typed column per column of the schema, in its order."""
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        features = unpack(table, schema)
        names = [column.name for column in schema.columns]
        yield pa.table({name: table[name] if name in table.column_names else features[name] for name in names})


def unpack(table: pa.Table, schema: DatasetSchema) -> dict[str, pa.Array]:
    """The features of packed columns, one typed array each, vectors as lists."""
    features: dict[str, pa.Array] = {}
    for packed in schema.packed:
        blobs = table[packed.name].combine_chunks().cast(pa.binary())
        dtype = np.dtype(packed.dtype).newbyteorder("<")
        matrix = np.frombuffer(b"".join(blobs.to_pylist()), dtype).reshape(len(table), -1)
        at = 0
        for column in map(schema.column, packed.members):
            values = np.ascontiguousarray(matrix[:, at : at + column.width])
            at += column.width
            if column.role == "vector":
                offsets = np.arange(len(table) + 1, dtype=np.int32) * column.width
                features[column.name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
            else:
                features[column.name] = pa.array(values[:, 0])
    return features
