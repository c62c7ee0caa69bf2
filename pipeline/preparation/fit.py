"""DRIVER and EXECUTOR. Fit the features on the staged train rows; each pass over them answers all fits at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipeline import storage
from pipeline.config.data import FeatureConfig
from pipeline.features import FittedFeatures, Kind, fit_features
from pipeline.features.repair import Repair, repaired
from pipeline.features.sketches import Cells, Fitting, Want, result_of
from pipeline.features.target import FOLD
from pipeline.preparation.columns import HASH, raw_arrays, with_typed
from pipeline.preparation.session import spark_errors

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
        measured = tuple(dict.fromkeys(map(_unlimited, wants)))
        answers = _answer(session, wants, _Measure(measured, kinds, repairs, paths))


def _answer(session: SparkSession, wants: Sequence[Want], measure: _Measure) -> list[Any]:
    tasks = session.range(0, len(measure.paths), 1, numPartitions=max(1, len(measure.paths)))
    cells = _merged(tasks.mapInArrow(measure, _CELLS), _limits(wants, measure.measured))
    with spark_errors("fitting the features"):
        found: pd.DataFrame = cells.toPandas()
    tables = dict(iter(found.groupby("want")))
    nothing = found.iloc[:0]
    return [_result(want, tables.get(measure.measured.index(_unlimited(want)), nothing)) for want in wants]


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
        kinds = {column: self.kinds[column] for column in columns if column in self.kinds}
        added = {column: HASH if column == FOLD else column for column in columns if column not in kinds}
        cells: list[list[Cells]] = [[] for _ in self.measured]
        for table in read_groups(path, [added.get(column, column) for column in columns]):
            raw, _ = repaired(raw_arrays(table, kinds), self.repairs)
            prepared = _Prepared({**raw, **{name: table.column(staged).to_numpy() for name, staged in added.items()}})
            for place, want in enumerate(self.measured):
                cells[place].append(want.sketch.cells(prepared(want)))
        yield from (_batch(place, Cells.merged(many)) for place, many in enumerate(cells) if many)


class _Prepared:
    """The values that wants measure in one row group; those of equal wants are made once."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw
        self._made: dict[Any, Any] = {}

    def __call__(self, want: Want) -> Any:
        if want.prepared not in self._made:
            self._made[want.prepared] = want.prepared({name: self._raw[name] for name in want.columns})
        return self._made[want.prepared]


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


def _batch(number: int, cells: Cells) -> pa.RecordBatch:
    want = np.full(len(cells.count), number, dtype=np.int32)
    arrays = [want, cells.text, cells.key, cells.count, cells.low, cells.high]
    return pa.RecordBatch.from_arrays(
        [pa.array(array, field.type) for array, field in zip(arrays, _SCHEMA, strict=True)], schema=_SCHEMA
    )


@dataclass(frozen=True)
class _Limit:
    """How many cells of a measurement are wanted at most, and their least count."""

    cells: int
    least: int


def _limits(wants: Sequence[Want], measured: Sequence[Want]) -> dict[int, _Limit]:
    """Per measurement the widest limit of those who share it; none where one of them wants all cells."""
    limits = {}
    for place, one in enumerate(measured):
        sketches = [want.sketch for want in wants if _unlimited(want) == one]
        if all(sketch.limit is not None for sketch in sketches):
            most = max(sketch.limit or 0 for sketch in sketches)
            limits[place] = _Limit(most, min(sketch.min_count for sketch in sketches))
    return limits


def _merged(cells: DataFrame, limits: Mapping[int, _Limit]) -> DataFrame:
    """Merge cells of equal keys, and leave out what the sketches do not want, before the driver sees any."""
    merged = cells.groupBy("want", "text", "key").agg(
        F.sum("count").alias("count"), F.min("low").alias("low"), F.max("high").alias("high")
    )
    if not limits:
        return merged
    widest = max(limit.cells for limit in limits.values())
    most, least = (
        F.create_map(*(F.lit(part) for place, limit in limits.items() for part in (place, getattr(limit, name))))
        for name in ("cells", "least")
    )
    frequent = merged.where(F.col("count") >= F.coalesce(least[F.col("want")], F.col("count")))
    # Cells that are all wanted are each ranked alone: a fixed bound on the rank lets Spark leave out most of the others
    # in the tasks that merge them, so that the one task which ranks those of a column gets few.
    alone = F.when(most[F.col("want")].isNull(), F.xxhash64("text", "key"))
    by_count = Window.partitionBy("want", alone).orderBy(F.desc("count"), F.asc("text"), F.asc("key"))
    ranked = frequent.withColumn("rank", F.row_number().over(by_count)).where(F.col("rank") <= widest)
    return ranked.where(F.col("rank") <= F.coalesce(most[F.col("want")], F.col("rank"))).drop("rank")


def _result(want: Want, found: pd.DataFrame) -> Any:
    """The statistic from the cells of its measurement, of which it may take fewer than others do."""
    numbers = {name: found[name].to_numpy(dtype=np.int64) for name in ("count", "key", "low", "high")}
    return result_of(want.sketch, Cells(text=found["text"].to_numpy(dtype=object), **numbers))
