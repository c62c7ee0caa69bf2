"""DRIVER and EXECUTOR. Fit the features on the staged train rows; each pass over them answers all fits at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipeline import storage
from pipeline.config.data import FeatureConfig
from pipeline.features import FittedFeatures, Kind, fit_features
from pipeline.features.repair import Repair
from pipeline.features.sketches import Cells, Fitting, Sketch, Want, result_of
from pipeline.preparation.columns import with_typed
from pipeline.preparation.row_group import RowGroup, staged_columns
from pipeline.preparation.session import spark_errors
from pipeline.preparation.tasks import numbered

_BATCH_CELLS = 1 << 16
_CELLS = "want int, text string, key long, count long, low long, high long"
_SCHEMA = pa.schema(
    [("want", pa.int32()), ("text", pa.string()), *((name, pa.int64()) for name in ("key", "count", "low", "high"))]
)


def fit(
    session: SparkSession,
    features: Mapping[str, FeatureConfig],
    kinds: Mapping[str, Kind],
    paths: Sequence[str],
    repairs: tuple[Repair, ...] = (),
    others: Sequence[Fitting] = (),
) -> tuple[FittedFeatures, list[Any]]:
    """Fit all features, and other things in the same passes, on the rows of the staged files.

    Args:
        session: to run tasks in.
        features: what to fit.
        kinds: of all raw columns that are asked for; what else is asked for was added while staging.
        paths: the staged train files.
        repairs: rules that change values before they are measured.
        others: further fits; their results come second.
    """
    fits = fit_features(features, repairs, others)
    answers: Any = None
    while True:
        try:
            wants = fits.send(answers)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answers = _answer(session, wants, kinds, repairs, paths)


def _answer(
    session: SparkSession,
    wants: Sequence[Want],
    kinds: Mapping[str, Kind],
    repairs: tuple[Repair, ...],
    paths: Sequence[str],
) -> list[Any]:
    """What each want asks for; equal ones, and those that differ in how much they take, are measured once."""
    unlimited = [_unlimited(want) for want in wants]
    limits = _limits(wants, unlimited)
    places = {want: place for place, want in enumerate(limits)}
    cells = numbered(session, len(paths)).mapInArrow(_Measure(tuple(limits), kinds, repairs, paths), _CELLS)
    with spark_errors("fitting the features"):
        found: pd.DataFrame = _merged(cells, [*limits.values()]).toPandas()
    answers = _by_place(found, len(places))
    pairs = zip(wants, unlimited, strict=True)
    return [result_of(want.sketch, answers[places[measured]]) for want, measured in pairs]


def _by_place(found: pd.DataFrame, places: int) -> list[Cells]:
    """The cells of each measurement."""
    order = np.argsort(found["want"].to_numpy(), kind="stable")
    columns = {name: found[name].to_numpy()[order] for name in ("want", "count", "key", "low", "high", "text")}
    ends = np.searchsorted(columns.pop("want"), np.arange(places + 1))
    return [
        Cells(**{name: column[start:end] for name, column in columns.items()})
        for start, end in itertools.pairwise(ends.tolist())
    ]


@dataclass(frozen=True)
class _Measure:
    """The body of a task: the cells of all that is measured, over some staged files."""

    measured: tuple[Want, ...]
    kinds: Mapping[str, Kind]
    repairs: tuple[Repair, ...]
    paths: Sequence[str]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                yield from self._file(self.paths[index])

    def _file(self, path: str) -> Iterator[pa.RecordBatch]:
        columns = dict.fromkeys(column for want in self.measured for column in want.columns)
        cells: list[list[Cells]] = [[] for _ in self.measured]
        for table in read_groups(path, staged_columns([*columns], self.kinds)):
            group = RowGroup(table, self.kinds, self.repairs)
            for place, want in enumerate(self.measured):
                cells[place].append(want.sketch.cells(group.values(want)))
        yield from _batches([Cells.merged(many) if many else None for many in cells])


def _unlimited(want: Want) -> Want:
    """What has to be measured for a want; several may share it and differ in how much of it they take."""
    return replace(want, sketch=replace(want.sketch, limit=None, min_count=0))  # type: ignore[type-var]


def read_groups(path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The row groups of a staged file, with typed columns beside raw ones; texts dictionary-encoded."""
    with storage.open_read(path) as stream:
        schema = pq.read_schema(stream)
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        stream.seek(0)
        file = pq.ParquetFile(stream, read_dictionary=texts)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=with_typed(columns, schema.names))


def _batches(cells: Sequence[Cells | None]) -> Iterator[pa.RecordBatch]:
    """The cells of each measurement with its place, those of many in one batch."""
    waiting, size = list[tuple[int, Cells]](), 0
    for place, one in ((place, one) for place, one in enumerate(cells) if one is not None):
        waiting.append((place, one))
        size += len(one.count)
        if size >= _BATCH_CELLS:
            yield _batch(waiting)
            waiting, size = [], 0
    if waiting:
        yield _batch(waiting)


def _batch(cells: Sequence[tuple[int, Cells]]) -> pa.RecordBatch:
    want = np.repeat(*np.array([(place, len(one.count)) for place, one in cells], dtype=np.int32).T)
    names = ("text", "key", "count", "low", "high")
    arrays = [want, *(np.concatenate([getattr(one, name) for _, one in cells]) for name in names)]
    return pa.RecordBatch.from_arrays(
        [pa.array(array, field.type) for array, field in zip(arrays, _SCHEMA, strict=True)], schema=_SCHEMA
    )


@dataclass(frozen=True)
class _Limit:
    """How many cells of a measurement are wanted at most, and their least count."""

    cells: int
    least: int


def _limits(wants: Sequence[Want], unlimited: Sequence[Want]) -> dict[Want, _Limit | None]:
    """What is to be measured, each with the widest limit of those who share it; None where one of them wants all.

    Those of equal limits stand side by side, so that a range of places says which they are.
    """
    sketches: dict[Want, list[Sketch]] = {}
    for want, measured in zip(wants, unlimited, strict=True):
        sketches.setdefault(measured, []).append(want.sketch)
    by_limit: dict[_Limit | None, list[Want]] = {}
    for measured, sharing in sketches.items():
        most = [sketch.limit for sketch in sharing if sketch.limit is not None]
        least = min(sketch.min_count for sketch in sharing)
        limit = _Limit(max(most), least) if len(most) == len(sharing) else None
        by_limit.setdefault(limit, []).append(measured)
    return {measured: limit for limit, group in by_limit.items() for measured in group}


def _merged(cells: DataFrame, limits: Sequence[_Limit | None]) -> DataFrame:
    """Merge cells of equal keys, and leave out what the sketches do not want, before the driver sees any.

    Args:
        cells: as tasks give them.
        limits: of each measurement.
    """
    merged = cells.groupBy("want", "text", "key").agg(
        F.sum("count").alias("count"), F.min("low").alias("low"), F.max("high").alias("high")
    )
    widest = max((limit.cells for limit in limits if limit), default=0)
    if not widest:
        return merged
    most, least = (_by_want(limits, name) for name in ("cells", "least"))
    frequent = merged.where(F.col("count") >= F.coalesce(least, F.col("count")))
    # Cells that are all wanted are each ranked alone: a fixed bound on the rank lets Spark leave out most of the others
    # in the tasks that merge them, so that the one task which ranks those of a column gets few.
    alone = F.when(most.isNull(), F.xxhash64("text", "key"))
    by_count = Window.partitionBy("want", alone).orderBy(F.desc("count"), F.asc("text"), F.asc("key"))
    ranked = frequent.withColumn("rank", F.row_number().over(by_count)).where(F.col("rank") <= widest)
    return ranked.where(F.col("rank") <= F.coalesce(most, F.col("rank"))).drop("rank")


def _by_want(limits: Sequence[_Limit | None], name: str) -> Column:
    """An attribute of the limit of a cell's measurement; null where it has none."""
    found, place = F.lit(None).cast("int"), 0
    for limit, group in itertools.groupby(limits):
        first, place = place, place + len([*group])
        if limit is not None:
            found = F.when(F.col("want").between(first, place - 1), getattr(limit, name)).otherwise(found)
    return found
