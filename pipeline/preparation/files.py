"""EXECUTOR. Rows as Parquet files: exact row groups, names of their own, checksums on the way."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from pipeline import storage
from pipeline.preparation.session import spark_errors


def write_rows(
    url: str, tables: Iterable[pa.Table], rows_per_row_group: int, durable: bool = True
) -> tuple[int, storage.Digest] | None:
    """Write tables as one Parquet file with row groups of exactly so many rows; no rows, no file."""
    rows = 0
    groups = _regroup(tables, rows_per_row_group)
    first = next(groups, None)
    if first is None:
        return None
    texts = [field.name for field in first.schema if pa.types.is_string(field.type)]
    with storage.open_write(url, durable) as stream:
        with pq.ParquetWriter(stream, first.schema, use_dictionary=texts) as writer:
            for group in itertools.chain([first], groups):
                writer.write_table(group, row_group_size=rows_per_row_group)
                rows += len(group)
        return rows, stream.digest


def _regroup(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        if count >= rows:
            joined = pa.concat_tables(waiting)
            cut = count - count % rows
            yield from (joined.slice(start, rows) for start in range(0, cut, rows))
            waiting, count = [joined.slice(cut)], count - cut
    if count:
        yield pa.concat_tables(waiting)


def write_partitions(frame: DataFrame, columns: Sequence[str], folder: str) -> list[str]:
    """Write some columns of a frame, one Parquet file per partition that has rows; gives the files' urls."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        url = storage.join(folder, f"part-{uuid.uuid4().hex}.parquet")
        tables = (pa.Table.from_batches([batch]).select(list(columns)) for batch in batches)
        if write_rows(url, tables, 1 << 16) is not None:
            yield pa.RecordBatch.from_pydict({"url": [url]})

    with spark_errors("writing the quarantine"):
        return sorted(row["url"] for row in frame.mapInArrow(write, "url string").collect())
