"""DRIVER and EXECUTOR. One shuffle puts every row into the file and the place where it will stay: staged rows.

Everything after it (statistics, encoding) reads the staged files with pyarrow, so the inputs are scanned no more,
and all counts are of rows that were written.
"""

from __future__ import annotations

import itertools
import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.features import VectorFeature
from pipeline.errors import DataError
from pipeline.preparation.clean import REASONS
from pipeline.preparation.columns import BUCKET, CHECKS, HASH, KNOWN, KNOWN_ROWS, check_text, is_typed, typed_name
from pipeline.preparation.counts import Counts
from pipeline.preparation.files import write_passing_rows, write_rows
from pipeline.preparation.hashing import hashable, id_checks
from pipeline.preparation.label import counted_as, label_values, staged_labels
from pipeline.preparation.layout import Layout, placement
from pipeline.preparation.quoting import column
from pipeline.preparation.rules import limited_rules
from pipeline.preparation.session import spark_errors, temporary_settings
from pipeline.preparation.split import split_of
from pipeline.preparation.ties import Ties
from pipeline.preparation.weight import weight_values

_BATCH, _BATCH_BYTES = "spark.sql.execution.arrow.maxRecordsPerBatch", 64 << 20
SAMPLE_ROWS = 1000
"""How many rejected rows `clean.quarantine: sample` keeps of each file."""


@dataclass(frozen=True)
class Staged:
    """One staged file and what was counted while it was written; ``path`` is None where nothing was.

    Attributes:
        rows: rows in the file, without duplicates.
        known: published rows of the ids that came again.
        checks: sums of the two id hashes over all rows, duplicates included, modulo 2**64; 0 if not wanted.
        reasons: how often each reason to reject was given; a row may have several.
        rules: rows that each of `pipeline.preparation.rules.limited_rules` rejects.
        classes: rows of each class, see `pipeline.preparation.label.counted_as`.
        weightless: rows in the file whose weight is 0.
    """

    bucket: int
    path: str | None
    rows: int
    duplicates: int
    rejected: int
    checks: tuple[int, int]
    reasons: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    known: int = 0
    weightless: int = 0


def stage(
    frame: DataFrame, config: PipelineConfig, layout: Layout, folder: str, compare_ids: bool = False
) -> list[Staged]:
    """Write the rows of `add_reasons` to Parquet files below ``folder``, one per bucket of the layout.

    In a file rows are ordered by a hash of their id, then the id, then all their values; with deduplication
    the first row of each id in this order stays. Rejected rows go to buckets of their own.

    Args:
        frame: the rows.
        config: how they are identified, split and deduplicated.
        layout: how many files each split has.
        folder: where files go.
        compare_ids: also sum the hashes of all ids, to be compared with the input's.
    """
    names = [name for name in frame.columns if name not in (REASONS, KNOWN, KNOWN_ROWS) and not is_typed(name)]
    ids = config.source.id or names
    placed = _placed(frame, config, layout, ids, compare_ids)
    by_bucket = placed.repartition(layout.buckets, _place(frame, layout)).sortWithinPartitions(HASH)
    sensitive = tuple(config.source.sensitive)
    labels, counted = tuple(staged_labels(config.label)), counted_as(config.label)
    most = config.label.max_classes if config.label and config.label_type == "multiclass" else None
    ties = _ties(config, ids, names, frame.columns)
    shown = {"all": None, "sample": SAMPLE_ROWS, "none": 0}[config.clean.quarantine]
    limited = limited_rules(config)
    writer = _StageWriter(folder, layout, tuple(frame.columns), ties, shown, labels, counted, sensitive, most, limited)
    session = frame.sparkSession
    with spark_errors("cleaning"), temporary_settings(session, {_BATCH: str(_batch_rows(session, config))}):
        rows = by_bucket.mapInArrow(writer, "staged string").collect()
    found = [json.loads(row["staged"]) for row in rows]
    if len({one["bucket"] for one in found}) < len(found):
        raise DataError(
            "the rows of a file came in parts; expected Spark to bring each file's rows to a task of their own, "
            "by the hash that all versions since 3 have; use one of them"
        )
    return sorted((Staged(**{**one, "checks": tuple(one["checks"])}) for one in found), key=lambda one: one.bucket)


def _batch_rows(session: SparkSession, config: PipelineConfig) -> int:
    """How many rows Spark gives a task at a time: fewer of large ones, since Arrow cannot hold 2 GiB of a column."""
    raw = 8 * sum(math.prod(one.shape) for one in config.features.values() if isinstance(one, VectorFeature))
    most = int(session.conf.get(_BATCH, "10000") or 10_000)
    return min(most, max(1, _BATCH_BYTES // raw)) if raw else most


def _placed(frame: DataFrame, config: PipelineConfig, layout: Layout, ids: list[str], compare_ids: bool) -> DataFrame:
    """The frame with what staging needs to know of a row.

    The bucket is that which a row has if it is fit: this projection does not look at `REASONS`, so that Spark makes
    one of it and that of `add_reasons`. A projection more copies every row once more.
    """
    parts = hashable(frame, ids)
    file_hash = F.xxhash64(F.lit("file"), *parts)
    split = split_of(frame, config, ids)
    bucket = F.lit(layout.bucket_of("rejected")) + F.pmod(file_hash, F.lit(layout.quarantine_files))
    for name, files in layout.files.items():
        at = F.lit(layout.bucket_of(name)) + F.pmod(file_hash, F.lit(files))
        bucket = F.when(split == name, at).otherwise(bucket)
    if layout.known_buckets:
        at = F.lit(layout.bucket_of("known")) + F.pmod(file_hash, F.lit(layout.known_buckets))
        bucket = F.when(F.col(KNOWN), at).otherwise(bucket)
    checks = zip(id_checks(frame, ids), CHECKS, strict=True) if compare_ids else ()
    return frame.select(
        *(column(name).alias(_position(place)) for place, name in enumerate(frame.columns)),
        *label_values(frame, config.label),
        *weight_values(frame, config.label),
        F.xxhash64(F.lit("order"), *parts).alias(HASH),
        bucket.cast("int").alias(BUCKET),
        *(check.alias(name) for check, name in checks),
    )


def _position(place: int) -> str:
    """PySpark finds no columns with dots in their names for `mapInArrow`; the writer gives them back."""
    return f"_column_{place}"


def _place(frame: DataFrame, layout: Layout) -> Column:
    """A number that Spark's hash partitioning sends to the partition of a row's bucket."""
    reasons, known = (
        F.col(_position(frame.columns.index(name))) if name in frame.columns else F.lit(False)
        for name in (REASONS, KNOWN)
    )
    unfit = reasons.isNotNull() & ~known
    rejected = F.lit(layout.bucket_of("rejected")) + F.pmod(F.col(BUCKET), F.lit(layout.quarantine_files))
    bucket = F.when(unfit, rejected).otherwise(F.col(BUCKET))
    places = F.array(*(F.lit(place) for place in placement(layout.buckets)))
    return F.element_at(places, bucket + 1)


def _buckets(batch: pa.RecordBatch, layout: Layout) -> npt.NDArray[np.int32]:
    """The same buckets as `_place` looks at."""
    buckets = batch.column(BUCKET).to_numpy()
    unfit = batch.column(REASONS).is_valid().to_numpy(zero_copy_only=False)
    if KNOWN in batch.schema.names:
        unfit &= ~batch.column(KNOWN).to_numpy(zero_copy_only=False)
    return np.where(unfit, layout.bucket_of("rejected") + buckets % layout.quarantine_files, buckets)


def _ties(config: PipelineConfig, ids: list[str], names: list[str], there: Sequence[str]) -> Ties:
    """How rows of one id are ordered and which of them stay; a column that features read as times is one of times."""
    same = {False: (), "row": tuple(names)}.get(config.clean.deduplicate, tuple(ids))
    if config.clean.keep is None:
        return Ties(HASH, tuple(ids), tuple(names), same)
    which, by = (part.strip() for part in config.clean.keep.split(" by ", 1))
    by = typed_name(by) if typed_name(by) in there else by
    return Ties(HASH, tuple(ids), tuple(names), same, by, which == "first")


@dataclass(frozen=True)
class _StageWriter:
    """The body of a staging task: the rows of one bucket arrive ordered by hash."""

    folder: str
    layout: Layout
    columns: tuple[str, ...]
    ties: Ties
    most_shown: int | None
    labels: tuple[str, ...]
    counted: Mapping[str, str]
    sensitive: tuple[str, ...]
    most_classes: int | None
    limited: Mapping[str, tuple[str, ...]]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for bucket, run in itertools.groupby(_runs(map(self._named, batches), self.layout), key=lambda pair: pair[0]):
            staged = self._write(bucket, (batch for _, batch in run))
            yield pa.RecordBatch.from_pydict({"staged": [json.dumps(vars(staged))]})

    def _named(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the columns' own names.

        Raises:
            DataError: a text is not UTF-8, which Spark does not look at.
        """
        names = [*self.columns, *batch.schema.names[len(self.columns) :]]
        for name, array in zip(names, batch.columns, strict=True):
            check_text(name, array)
        return pa.RecordBatch.from_arrays(batch.columns, names=names)

    def _write(self, bucket: int, batches: Iterator[pa.RecordBatch]) -> Staged:
        split, group = self.layout.split_of(bucket), self.layout.rows_per_staged_group
        url = storage.join(self.folder, split, f"part-{bucket:05d}-{uuid.uuid4().hex}.parquet")
        counts = Counts(self.labels, self.counted, self.sensitive, self.most_classes, self.limited)
        if split == "rejected":  # which become the quarantine
            written = write_rows(url, counts.rejecting(batches, self.most_shown), group)
            rows = written[0] if written else None
        elif split == "known":
            ties = replace(self.ties, same=self.ties.ids)
            rows = write_passing_rows(url, counts.knowing(batches, ties), group)
        else:
            rows = write_passing_rows(url, counts.keeping(batches, self.ties), group)
        return Staged(
            bucket=bucket,
            path=url if rows else None,
            rows=rows or 0,
            duplicates=counts.duplicates,
            rejected=counts.rejected,
            checks=(counts.checks[0], counts.checks[1]),
            reasons=counts.reasons,
            rules=counts.rules,
            classes=counts.classes,
            known=counts.known,
            weightless=counts.weightless,
        )


def _runs(batches: Iterable[pa.RecordBatch], layout: Layout) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in filter(len, batches):
        buckets = _buckets(batch, layout)
        starts = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]
        for start, end in itertools.pairwise(starts):
            yield int(buckets[start]), batch.slice(start, end - start)


def files_of(staged: Sequence[Staged], layout: Layout, split: str) -> list[Staged]:
    """The staged files of a split, in order."""
    return [one for one in staged if one.path is not None and layout.split_of(one.bucket) == split]
