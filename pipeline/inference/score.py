"""DRIVER and EXECUTOR. A Spark table of raw rows in, the same rows with predictions out."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DataType, DoubleType, FloatType, IntegerType, StringType, StructType

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.errors import DataError, PipelineError
from pipeline.inference.predictor import Predictor, PredictorSource
from pipeline.inference.resolve import model_folder
from pipeline.inference.stored_table import StoredTable
from pipeline.inference.unfinished import refuse_target, unfinished_folder
from pipeline.models.answers import AnswerType
from pipeline.preparation.columns import raw_arrays
from pipeline.preparation.inputs import spark_path, spark_url
from pipeline.preparation.jobs import ended_jobs
from pipeline.preparation.read import parsed
from pipeline.preparation.session import preparation_settings, spark_errors

_Found = TypeVar("_Found")
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
    return _scored(frame, _loaded(folder, allow_factories))


def _loaded(folder: str, allow_factories: Iterable[str]) -> Predictor:
    return Predictor.load(storage.resolve(folder, os.getcwd()), tuple(allow_factories))  # executors run elsewhere


def _scored(frame: DataFrame, predictor: Predictor) -> DataFrame:
    _check_columns(frame, predictor)
    schema = StructType([*frame.schema.fields])
    for name, type_ in added_columns(predictor).items():
        schema = schema.add(name, type_)
    return frame.mapInArrow(functools.partial(_score_batches, predictor.source), schema)


def _check_columns(frame: DataFrame, predictor: Predictor) -> None:
    wanted, there = predictor.features.inputs, frame.columns
    missing = [f"{name} ({kind})" for name, kind in wanted.items() if name not in there]
    offences = []
    if missing:
        offences.append(
            f"the table lacks {', '.join(missing)}; expected every column that the model reads; the table has "
            f"{', '.join(there)}; score rows as preparation reads them, of source.query where there is one"
        )
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
    session: Callable[[], SparkSession], config: PipelineConfig, source: str, target: str, model: str | None = None
) -> dict[str, Any]:
    """Score a stored table into a new Parquet folder, which appears when it is complete.

    Args:
        session: gives the session, when model, table and target have been looked at.
        config: names the registered model, the factory that may be imported, and how tables are written.
        source: a file, a folder or a glob pattern of Parquet, ORC, JSON or CSV with the raw columns; how it is read
            says `pipeline.inference.stored_table.StoredTable.read`.
        target: folder to write.
        model: see `pipeline.inference.resolve.model_folder`.

    Returns:
        What RESULT says: rows in and out, model folder and version, seconds.

    Raises:
        InputMissingError: the table or the model is not there.
        OutputError: the target exists, or another command is writing it.
        InterruptedRunError: another command has taken over.
        StorageError: the model is corrupt, or the target cannot be written.
        DataError: columns are missing, or hold values of the wrong kind; or rows cannot be parsed.
    """
    started = time.monotonic()
    predictor, stored = _looked_at(config, source, target, model)
    spark = session()
    target = storage.local_path(target) if storage.is_local(target) else target
    with (
        preparation_settings(spark, hides_values=bool(config.source.sensitive)),
        unfinished_folder(target) as unfinished,
        ended_jobs(spark.sparkContext, "score"),
        spark_errors(source),
    ):
        table = stored.read(spark, config, predictor.features.inputs)
        scored = _scored(parsed(table), predictor)
        rows = {"in": stored.check_rows(table, config)}
        scored.write.parquet(spark_url(unfinished))
        rows["out"] = spark.read.parquet(spark_path(unfinished)).count()
        if rows["in"] != rows["out"]:
            raise PipelineError(
                f"{rows['out']} rows were scored; expected {rows['in']}; did the table change meanwhile?"
            )
    seconds = {"score": round(time.monotonic() - started, 1)}
    used = {"url": predictor.source.folder, "version": predictor.digest[:12]}
    return {"rows": rows, "output": target, "model": used, "seconds": seconds}


def _looked_at(config: PipelineConfig, source: str, target: str, model: str | None) -> tuple[Predictor, StoredTable]:
    """Model and table, with all that is wrong with either and with the target said at once; the first decides."""
    errors: list[PipelineError] = []

    def tried(look: Callable[[], _Found]) -> _Found | None:
        try:
            return look()
        except PipelineError as error:
            errors.append(error)
            return None

    predictor = tried(lambda: _loaded(model_folder(model, config), config.allowed_factories))
    stored = tried(lambda: StoredTable.find(source))
    tried(lambda: refuse_target(target))
    if predictor is None or stored is None or errors:
        raise type(errors[0])(*(offence for error in errors for offence in error.offences))
    return predictor, stored
