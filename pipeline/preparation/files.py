"""EXECUTOR. Rows as Parquet files: exact row groups, names of their own, checksums on the way."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from pipeline import storage
from pipeline.preparation.session import spark_errors


def write_rows(url: str, tables: Iterable[pa.Table], rows_per_row_group: int) -> tuple[int, storage.Digest] | None:
    """Write tables as one Parquet file with row groups of exactly so many rows; no rows, no file."""
    groups = _regroup(tables, rows_per_row_group)
    first = next(groups, None)
    if first is None:
        return None
    with storage.open_write(url) as stream:
        return _write(stream, first, groups), stream.digest


def write_passing_rows(url: str, tables: Iterable[pa.Table], rows_per_row_group: int) -> int | None:
    """As `write_rows`, a file that only this attempt reads, some times, and that dies with it; how many rows.

    It need not survive a power cut nor be compared with a digest, and on a local disk it is not compressed: reading is
    quicker than decoding.
    """
    groups = _regroup(tables, rows_per_row_group)
    first = next(groups, None)
    if first is None:
        return None
    compression = "none" if storage.is_local(url) else "snappy"
    with storage.open_new(url) as stream:
        return _write(stream, first, groups, compression=compression, write_statistics=False)


def _write(stream: Any, first: pa.Table, rest: Iterator[pa.Table], **options: Any) -> int:
    rows = 0
    texts = [field.name for field in first.schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(stream, first.schema, use_dictionary=texts, **options) as writer:
        for group in itertools.chain([first], rest):
            writer.write_table(group, row_group_size=len(group))
            rows += len(group)
    return rows


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
