"""DRIVER and EXECUTOR. A Spark table of raw rows in, the same rows with predictions out."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DataType, DoubleType, FloatType, IntegerType, StringType, StructType

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.errors import DataError, InputMissingError, OutputError, PipelineError
from pipeline.inference.predictor import Predictor, PredictorSource
from pipeline.inference.resolve import model_folder
from pipeline.inference.unfinished import unfinished_folder
from pipeline.models.answers import AnswerType
from pipeline.preparation.columns import raw_arrays
from pipeline.preparation.inputs import files_at, spark_path, spark_url
from pipeline.preparation.jobs import ended_jobs
from pipeline.preparation.parquet import read_parquet
from pipeline.preparation.session import spark_errors

_VERSION = "model_version"
_TYPES: dict[AnswerType, DataType] = {
    "integer": IntegerType(),
    "float": FloatType(),
    "double": DoubleType(),
    "string": StringType(),
}
_ARROW = {"integer": pa.int32(), "float": pa.float32(), "double": pa.float64(), "string": pa.string()}


def added_columns(predictor: Predictor) -> dict[str, DataType]:
    """Names and types of the columns that scoring appends."""
    answers = {name: _TYPES[type_] for name, type_ in predictor.answers.columns.items()}
    return {**answers, _VERSION: StringType()}


def score(frame: DataFrame, folder: str, allow_factories: Iterable[str] = ()) -> DataFrame:
    """Append ``prediction``, of classes its ``probability``, and ``model_version`` to every row.

    For a binary label that is 0 or 1 and the probability of class 1; for a multiclass label the name of the likeliest
    class and its probability; for regression a number in the label's own unit, and no probability; with several labels
    each has columns of its own, ``prediction_<label>``. Nothing else about the rows changes. Each Python worker loads
    and verifies the model once.

    Args:
        frame: at least the raw columns that the model's features need.
        folder: URL of the model folder, readable from the executors.
        allow_factories: see `pipeline.inference.predictor.Predictor.load`.

    Raises:
        DataError: columns are missing, or the frame has a column of one of the new names.
        StorageError: the model is corrupt.
    """
    here = storage.resolve(folder, os.getcwd())  # executors run elsewhere
    predictor = Predictor.load(here, tuple(allow_factories))
    _check_columns(frame, predictor)
    schema = StructType([*frame.schema.fields])
    for name, type_ in added_columns(predictor).items():
        schema = schema.add(name, type_)
    return frame.mapInArrow(functools.partial(_score_batches, predictor.source), schema)


def _check_columns(frame: DataFrame, predictor: Predictor) -> None:
    wanted, there = predictor.features.inputs, frame.columns
    available = ", ".join(there)
    offences = [
        f"column {name} is missing; expected {kind} values; the table has {available}"
        for name, kind in wanted.items()
        if name not in there
    ]
    offences += [
        f"column {name} is there already; expected another name; rename it"
        for name in added_columns(predictor)
        if name in there
    ]
    if offences:
        raise DataError(*offences)


def _score_batches(source: PredictorSource, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    predictor = source.load()
    for batch in batches:
        raw = raw_arrays(pa.Table.from_batches([batch]), predictor.features.inputs)
        answers = predictor.answers.table(predictor.predict_canonical(raw))
        versions = pa.array([source.digest[:12]] * batch.num_rows, pa.string())
        added = [pa.array(answers[name], _ARROW[type_]) for name, type_ in predictor.answers.columns.items()]
        added.append(versions)
        names = [*batch.schema.names, *added_columns(predictor)]
        yield pa.RecordBatch.from_arrays([*batch.columns, *added], names=names)


def score_table(
    spark: SparkSession, config: PipelineConfig, source: str, target: str, model: str | None = None
) -> dict[str, Any]:
    """Score a stored table into a new Parquet folder, which appears when it is complete.

    Args:
        spark: the session.
        config: names the registered model, and the factory that may be imported.
        source: Parquet, JSON or CSV with the raw columns; CSV has a header, an empty field is a null.
        target: folder to write.
        model: see `pipeline.inference.resolve.model_folder`.

    Returns:
        What RESULT says: rows in and out, model folder and version, seconds.

    Raises:
        InputMissingError: the table is not there.
        OutputError: the target exists.
        DataError: columns are missing, or hold values of the wrong kind.
    """
    started = time.monotonic()
    if storage.exists(target):
        raise OutputError(f"{target} exists; expected a new folder; choose another or remove it")
    folder = model_folder(model, config)
    table = read_table(spark, source)
    scored = score(table, folder, config.allowed_factories)
    target = storage.local_path(target) if storage.is_local(target) else target
    with unfinished_folder(target) as unfinished, ended_jobs(spark.sparkContext, "score"), spark_errors(source):
        scored.write.parquet(spark_url(unfinished))
        rows = {"in": table.count(), "out": spark.read.parquet(spark_path(unfinished)).count()}
        if rows["in"] != rows["out"]:
            raise PipelineError(
                f"{rows['out']} rows were scored; expected {rows['in']}; did the table change meanwhile?"
            )
        storage.move_folder(unfinished, target)
    version = Predictor.load(folder, config.allowed_factories).digest[:12]
    seconds = {"score": round(time.monotonic() - started, 1)}
    return {"rows": rows, "output": target, "model": {"url": folder, "version": version}, "seconds": seconds}


def read_table(spark: SparkSession, source: str) -> DataFrame:
    """A stored table; a CSV's texts are left to the features to interpret, so that none becomes null in silence."""
    if not storage.exists(source):
        raise InputMissingError(f"{source} is missing; expected a Parquet, JSON or CSV table; check the path")
    path = spark_path(source)
    with spark_errors(source):
        if source.rstrip("/").endswith((".csv", ".csv.gz")):
            return spark.read.csv(path, header=True, inferSchema=False)
        if source.rstrip("/").endswith((".json", ".jsonl")):
            return spark.read.json(path)
        files = sorted(file.path for file in files_at(source) if file.bytes)
        # As preparation reads them, whose settings are the session's: old dates are taken as they stand.
        reader = spark.read.options(datetimeRebaseMode="CORRECTED", int96RebaseMode="CORRECTED").format("parquet")
        return read_parquet(spark, reader, source, [path], files)
