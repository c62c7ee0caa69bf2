"""DRIVER and EXECUTOR. Fit the features on the staged train rows; each pass over them answers all fits at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from pipeline.features.sketches import Cells, Fitting, Want
from pipeline.features.target import FOLD, LABEL
from pipeline.preparation.columns import raw_arrays
from pipeline.preparation.session import spark_errors
from pipeline.preparation.stage import HASH

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
        kinds: of all raw columns that are asked for.
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
        answers = _answer(session, wants, _Measure(wants, kinds, repairs, paths))


def _answer(session: SparkSession, wants: list[Want], measure: _Measure) -> list[Any]:
    tasks = session.range(0, len(measure.paths), 1, numPartitions=len(measure.paths))
    cells = _merged(tasks.mapInArrow(measure, _CELLS), wants)
    with spark_errors("fitting the features"):
        found: pd.DataFrame = cells.toPandas()
    return [want.sketch.result(_cells(found[found["want"] == number])) for number, want in enumerate(wants)]


@dataclass(frozen=True)
class _Measure:
    """The body of a task: the cells of all wants over some staged files."""

    wants: list[Want]
    kinds: Mapping[str, Kind]
    repairs: tuple[Repair, ...]
    paths: Sequence[str]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                yield from self._file(self.paths[index])

    def _file(self, path: str) -> Iterator[pa.RecordBatch]:
        added = {LABEL: LABEL, FOLD: HASH}
        columns = dict.fromkeys(column for want in self.wants for column in want.columns)
        kinds = {column: self.kinds[column] for column in columns if column not in added}
        for table in read_groups(path, [added.get(column, column) for column in columns]):
            raw = dict(repaired(raw_arrays(table, kinds), self.repairs))
            raw |= {column: table.column(added[column]).to_numpy() for column in columns if column in added}
            for number, want in enumerate(self.wants):
                yield _batch(number, want.sketch.cells(want.prepared({name: raw[name] for name in want.columns})))


def read_groups(path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The row groups of a staged file; texts dictionary-encoded."""
    with storage.open_read(path) as stream:
        texts = [field.name for field in pq.read_schema(stream) if pa.types.is_string(field.type)]
        stream.seek(0)
        file = pq.ParquetFile(stream, read_dictionary=texts)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns))


def _batch(number: int, cells: Cells) -> pa.RecordBatch:
    want = np.full(len(cells.count), number, dtype=np.int32)
    arrays = [want, cells.text, cells.key, cells.count, cells.low, cells.high]
    return pa.RecordBatch.from_arrays(
        [pa.array(array, field.type) for array, field in zip(arrays, _SCHEMA, strict=True)], schema=_SCHEMA
    )


def _merged(cells: DataFrame, wants: list[Want]) -> DataFrame:
    """Merge cells of equal keys, and leave out what the sketches do not want, before the driver sees any."""
    merged = cells.groupBy("want", "text", "key").agg(
        F.sum("count").alias("count"), F.min("low").alias("low"), F.max("high").alias("high")
    )
    limits = {number: want.sketch for number, want in enumerate(wants) if want.sketch.limit is not None}
    if not limits:
        return merged
    limit = F.create_map(*(F.lit(part) for number, sketch in limits.items() for part in (number, sketch.limit)))
    least = F.create_map(*(F.lit(part) for number, sketch in limits.items() for part in (number, sketch.min_count)))
    frequent = merged.where(F.col("count") >= F.coalesce(least[F.col("want")], F.col("count")))
    by_count = Window.partitionBy("want").orderBy(F.desc("count"), F.asc("text"), F.asc("key"))
    ranked = frequent.withColumn("rank", F.row_number().over(by_count))
    return ranked.where(F.col("rank") <= F.coalesce(limit[F.col("want")], F.col("rank"))).drop("rank")


def _cells(found: pd.DataFrame) -> Cells:
    numbers = {name: found[name].to_numpy(dtype=np.int64) for name in ("count", "key", "low", "high")}
    return Cells(text=found["text"].to_numpy(dtype=object), **numbers)
