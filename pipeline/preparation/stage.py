"""DRIVER and EXECUTOR. One shuffle puts every row into the file and the place where it will stay: staged rows.

Everything after it (statistics, encoding) reads the staged files with pyarrow, so the inputs are scanned no more,
and all counts are of rows that were written.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.features.target import LABEL
from pipeline.preparation.clean import REASONS
from pipeline.preparation.label import label_value
from pipeline.preparation.layout import Layout, placement
from pipeline.preparation.read import hashable, id_checks
from pipeline.preparation.session import spark_errors
from pipeline.preparation.split import split_of

HASH = "_hash"
_BUCKET, _PLACE, _DUPLICATE, _CHECKS = "_bucket", "_place", "_duplicate", ("_check_1", "_check_2")
_INTERNAL = (LABEL, HASH, _BUCKET, _PLACE, _DUPLICATE, *_CHECKS, REASONS)
SAMPLE_ROWS = 1000
"""How many rejected rows `clean.quarantine: sample` keeps of each file."""


@dataclass(frozen=True)
class Staged:
    """One staged file and what was counted while it was written; ``path`` is None where nothing was.

    Attributes:
        rows: rows in the file, without duplicates.
        checks: sums of the two id hashes over all rows, duplicates included, modulo 2**64.
        reasons: how often each reason to reject was given; a row may have several.
        classes: rows of each label.
    """

    bucket: int
    path: str | None
    rows: int
    duplicates: int
    rejected: int
    checks: tuple[int, int]
    reasons: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)


def stage(frame: DataFrame, config: PipelineConfig, layout: Layout, folder: str) -> list[Staged]:
    """Write the rows of `add_reasons` to Parquet files below ``folder``, one per bucket of the layout.

    In a file rows are ordered by a hash of their id, then the id, then all their values; with deduplication
    the first row of each id in this order stays. Rejected rows go to buckets of their own.
    """
    names = [name for name in frame.columns if name != REASONS]
    ids = config.source.id or names
    placed = _placed(frame, config, layout, ids)
    order = [F.col(HASH), *(F.col(f"`{name}`") for name in ids), *_tie_break(frame, names)]
    by_place = placed.repartition(layout.buckets, _PLACE)
    if config.clean.deduplicate:
        whole = config.clean.deduplicate == "row"
        same = [F.col(f"`{name}`") for name in ids] if not whole else order[1:]
        group = Window.partitionBy(_PLACE, _BUCKET, HASH, *same).orderBy(*_preference(config), *order[1:])
        by_place = by_place.withColumn(_DUPLICATE, F.row_number().over(group) > 1)
    else:
        by_place = by_place.withColumn(_DUPLICATE, F.lit(False)).sortWithinPartitions(_PLACE, _BUCKET, *order)
    counts_classes = config.label.type != "regression"
    writer = _StageWriter(folder, layout, config.clean.quarantine, counts_classes, tuple(config.source.sensitive))
    with spark_errors("cleaning"):
        rows = by_place.mapInArrow(writer, "staged string").collect()
    found = [json.loads(row["staged"]) for row in rows]
    return sorted((Staged(**{**one, "checks": tuple(one["checks"])}) for one in found), key=lambda one: one.bucket)


def _placed(frame: DataFrame, config: PipelineConfig, layout: Layout, ids: list[str]) -> DataFrame:
    parts = [column for name in ids for column in hashable(name)]
    file_hash = F.xxhash64(F.lit("file"), *parts)
    split = split_of(config, ids, config.label.column)
    bucket = F.lit(layout.bucket_of("rejected")) + F.pmod(file_hash, F.lit(layout.quarantine_files))
    for name, files in layout.files.items():
        at = F.lit(layout.bucket_of(name)) + F.pmod(file_hash, F.lit(files))
        bucket = F.when((F.size(REASONS) == 0) & (split == name), at).otherwise(bucket)
    checks = id_checks(ids)
    placed = frame.select(
        "*",
        label_value(frame, config.label).alias(LABEL),
        F.xxhash64(F.lit("order"), *parts).alias(HASH),
        bucket.cast("int").alias(_BUCKET),
        *(check.alias(name) for check, name in zip(checks, _CHECKS, strict=True)),
    )
    places = F.array(*(F.lit(place) for place in placement(layout.buckets)))
    return placed.withColumn(_PLACE, F.element_at(places, F.col(_BUCKET) + 1))


def _preference(config: PipelineConfig) -> list[Any]:
    """What `clean.keep` says about which row of an id stays."""
    if config.clean.keep is None:
        return []
    which, column = config.clean.keep.split(" by ", 1)
    name = F.col(f"`{column.strip()}`")
    return [name.asc_nulls_last() if which == "first" else name.desc_nulls_last()]


def _tie_break(frame: DataFrame, names: list[str]) -> Iterator[Any]:
    """All values, in an order that tells 0.0 from -0.0 and does not need the type to be orderable."""
    for name in names:
        column, type_ = F.col(f"`{name}`"), frame.schema[name].dataType
        if isinstance(type_, (T.FloatType, T.DoubleType)):
            yield column.cast("string")
        elif isinstance(type_, (T.ArrayType, T.MapType, T.StructType)):
            yield F.to_json(F.struct(column))
        else:
            yield column


@dataclass(frozen=True)
class _StageWriter:
    """The body of a staging task: rows arrive ordered by bucket."""

    folder: str
    layout: Layout
    quarantine: str
    counts_classes: bool
    sensitive: tuple[str, ...]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for bucket, run in itertools.groupby(_runs(batches), key=lambda pair: pair[0]):
            staged = self._write(bucket, (batch for _, batch in run))
            yield pa.RecordBatch.from_pydict({"staged": [json.dumps(vars(staged))]})

    def _write(self, bucket: int, batches: Iterator[pa.RecordBatch]) -> Staged:
        split = self.layout.split_of(bucket)
        url = storage.join(self.folder, split, f"part-{bucket:05d}-{uuid.uuid4().hex}.parquet")
        counts = _Counts(self.counts_classes, self.sensitive)
        if split == "rejected":
            kept = counts.rejecting(batches, {"all": None, "sample": SAMPLE_ROWS, "none": 0}[self.quarantine])
        else:
            kept = counts.keeping(batches)
        written = write_rows(url, kept, self.layout.rows_per_row_group)
        return Staged(
            bucket=bucket,
            path=url if written else None,
            rows=written[0] if written else 0,
            duplicates=counts.duplicates,
            rejected=counts.rejected,
            checks=(counts.checks[0], counts.checks[1]),
            reasons=counts.reasons,
            classes=counts.classes,
        )


def _runs(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in batches:
        buckets = batch.column(_BUCKET).to_numpy()
        if not len(buckets):
            continue
        starts = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]
        for start, end in itertools.pairwise(starts):
            yield int(buckets[start]), batch.slice(start, end - start)


class _Counts:
    """What a staging task counts of one bucket while its rows pass."""

    def __init__(self, counts_classes: bool, sensitive: tuple[str, ...]) -> None:
        self.counts_classes = counts_classes
        self.sensitive = sensitive
        self.duplicates = self.rejected = 0
        self.checks = [0, 0]
        self.reasons: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()

    def keeping(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        """Rows without duplicates, with label and hash beside the query's columns."""
        for batch in batches:
            self._check(batch)
            table = pa.Table.from_batches([batch])
            unique = table.filter(pc.invert(batch.column(_DUPLICATE)))
            self.duplicates += len(table) - len(unique)
            if self.counts_classes:
                for label in pc.value_counts(unique.column(LABEL)).to_pylist():
                    value = label["values"]
                    self.classes[value if isinstance(value, str) else f"{value:g}"] += label["counts"]
            yield unique.select(
                [name for name in unique.column_names if name in (LABEL, HASH) or name not in _INTERNAL]
            )

    def rejecting(self, batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.Table]:
        """Rejected rows with their reasons, the first ``limit`` of them."""
        for batch in batches:
            self._check(batch)
            table = pa.Table.from_batches([batch])
            for reason in pc.value_counts(pc.list_flatten(batch.column(REASONS))).to_pylist():
                self.reasons[reason["values"]] += reason["counts"]
            wanted = len(table) if limit is None else max(0, min(len(table), limit - self.rejected))
            self.rejected += len(table)
            shown = table.slice(0, wanted).drop([name for name in _INTERNAL if name != REASONS])
            yield _without_values(shown, self.sensitive)

    def _check(self, batch: pa.RecordBatch) -> None:
        for which, name in enumerate(_CHECKS):
            hashes = batch.column(name).to_numpy().astype(np.uint64)
            self.checks[which] = (self.checks[which] + int(hashes.sum(dtype=np.uint64))) % 2**64


def _without_values(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    for name in set(names) & set(table.column_names):
        empty = pa.nulls(len(table), table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, empty)
    return table


def write_rows(url: str, tables: Iterable[pa.Table], rows_per_row_group: int) -> tuple[int, storage.Digest] | None:
    """Write tables as one Parquet file with row groups of exactly so many rows; no rows, no file."""
    rows = 0
    groups = _regroup(tables, rows_per_row_group)
    first = next(groups, None)
    if first is None:
        return None
    texts = [field.name for field in first.schema if pa.types.is_string(field.type)]
    with storage.open_write(url) as stream:
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


def files_of(staged: Sequence[Staged], layout: Layout, split: str) -> list[Staged]:
    """The staged files of a split, in order."""
    return [one for one in staged if one.path is not None and layout.split_of(one.bucket) == split]


def write_partitions(frame: DataFrame, columns: Sequence[str], folder: str) -> list[str]:
    """Write some columns of a frame, one Parquet file per partition that has rows; gives the files' urls."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        url = storage.join(folder, f"part-{uuid.uuid4().hex}.parquet")
        tables = (pa.Table.from_batches([batch]).select(list(columns)) for batch in batches)
        if write_rows(url, tables, 1 << 16) is not None:
            yield pa.RecordBatch.from_pydict({"url": [url]})

    with spark_errors("writing the quarantine"):
        return sorted(row["url"] for row in frame.mapInArrow(write, "url string").collect())
