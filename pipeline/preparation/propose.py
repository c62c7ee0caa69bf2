"""DRIVER. Look at a table and propose a commented configuration that runs as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline import storage
from pipeline.config import parse_config
from pipeline.errors import DataError, OutputError
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.quoting import column, quoted
from pipeline.preparation.read import parsed, read_inputs
from pipeline.preparation.session import preparation_settings, spark_errors

_LABELS = ("label", "target", "y", "class", "outcome", "churn", "default")
_FORMATS = {"parquet": "parquet", "orc": "orc", "json": "json", "jsonl": "json", "ndjson": "json"}
_MOMENTS = (T.DateType, T.TimestampType, T.TimestampNTZType)
_PLAIN = (T.NumericType, T.StringType, T.BooleanType, *_MOMENTS)


@dataclass(frozen=True)
class _Seen:
    """What was counted of one column."""

    name: str
    type: T.DataType
    present: int
    distinct: int


def propose(session: SparkSession, path: str, label: str | None = None) -> str:
    """A YAML configuration for a table: types, features, label, id, and a split by date where there is one.

    Args:
        session: to read with.
        path: a file, folder or glob pattern: CSV, JSON lines, Parquet or ORC.
        label: the column to predict; by default the one whose name or values look like it.

    Raises:
        DataError: no column can be the label.
    """
    name = path.rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    format_ = _FORMATS.get(path.rsplit(".", 1)[-1].lower(), "csv")
    source = {"inputs": {"table": {"path": path, "format": format_}}}
    with preparation_settings(session), spark_errors(f"reading {path}"):
        frame = _frame(session, source)
        rows, columns = _look(frame)
        chosen = _label(columns, label)
        ids = _ids(frame, columns, chosen, rows)
        split = _split(frame, columns, chosen)
    features = {one.name: _feature(one, rows) for one in columns if one.name not in (chosen.name, *ids)}
    return _text(name, path, format_, frame, chosen, ids, split, {key: text for key, text in features.items() if text})


def _frame(session: SparkSession, source: Mapping[str, Any]) -> DataFrame:
    config = parse_config(
        {
            "source": source,
            "features": {"any": {"type": "numeric"}},
            "dataset": {"url": "any"},
            "training": {"run_url": "any-run"},
        }
    )
    return parsed(read_inputs(session, config, list_inputs(config))["table"])


def _look(frame: DataFrame) -> tuple[int, list[_Seen]]:
    """Count values and distinct values of all columns in one pass."""
    fields = [field for field in frame.schema if isinstance(field.dataType, _PLAIN)]
    counts = [F.count(column(field.name)).alias(f"p{place}") for place, field in enumerate(fields)]
    counts += [
        F.approx_count_distinct(column(field.name), 0.02).alias(f"d{place}") for place, field in enumerate(fields)
    ]
    found = frame.agg(F.count(F.lit(1)).alias("rows"), *counts).collect()[0]
    seen = [
        _Seen(field.name, field.dataType, found[f"p{place}"], found[f"d{place}"]) for place, field in enumerate(fields)
    ]
    return found["rows"], seen


def _label(columns: Sequence[_Seen], wanted: str | None) -> _Seen:
    by_name = {one.name.lower(): one for one in columns if one.distinct > 1}
    for name in [wanted.lower()] if wanted else _LABELS:
        if name in by_name:
            return by_name[name]
    usable = [one for one in columns if one.distinct > 1 and not isinstance(one.type, _MOMENTS)]
    two = [one for one in usable if one.distinct == 2]
    if wanted or not usable:
        names = ", ".join(one.name for one in columns)
        raise DataError(f"label {wanted or ''} is not among the columns; expected one of {names}; name it with --label")
    return (two or usable)[-1]


def _label_type(label: _Seen) -> str:
    if label.distinct == 2 and isinstance(label.type, (T.BooleanType, T.NumericType)):
        return "binary"
    is_fraction = isinstance(label.type, (T.FractionalType,))
    return "regression" if is_fraction or label.distinct > 100 else "multiclass"


def _ids(frame: DataFrame, columns: Sequence[_Seen], label: _Seen, rows: int) -> list[str]:
    """The first column whose values are all there and all different; nothing if there is none."""
    near = [
        one.name
        for one in columns
        if one.present == rows
        and one.distinct > 0.95 * rows
        and one.name != label.name
        and not isinstance(one.type, T.FractionalType)
    ]
    for name in near:
        if frame.select(column(name)).distinct().count() == rows:
            return [name]
    return []


def _split(frame: DataFrame, columns: Sequence[_Seen], label: _Seen) -> str:
    dates = [one for one in columns if isinstance(one.type, _MOMENTS) and one.name != label.name]
    if not dates:
        return "{by: hash, validation: 0.1, test: 0.1}"
    date = dates[0]
    if isinstance(date.type, T.DateType) and date.distinct >= 50:
        return f"{{by: group, key: {_quoted(date.name)}, validation: 0.1, test: 0.1}}   # rows of a day stay together"
    seconds = F.unix_seconds(column(date.name).cast("timestamp"))
    cuts: list[float] = frame.select(seconds.alias("s")).approxQuantile("s", [0.8, 0.9], 0.001)
    if len(set(cuts)) < 2:
        return "{by: hash, validation: 0.1, test: 0.1}"
    moments = frame.sparkSession.range(1).select(*(F.timestamp_seconds(F.lit(cut)) for cut in cuts))
    texts = [moment.isoformat() for moment in moments.collect()[0]]
    return (
        f"{{by: time, key: {_quoted(date.name)}, validation_from: '{texts[0]}', test_from: '{texts[1]}'}}"
        "   # the last tenth is the test"
    )


def _feature(one: _Seen, rows: int) -> str | None:
    """The feature that fits a column; None for columns that hold nothing to learn from."""
    if one.distinct < 2:
        return None
    indicator = ", indicator: true" if one.present < rows else ""
    if isinstance(one.type, T.BooleanType):
        return "{type: boolean}"
    if isinstance(one.type, T.NumericType):
        return f"{{type: numeric{indicator}}}"
    if isinstance(one.type, _MOMENTS):
        return "{type: timestamp, parts: [month, weekday, hour]}"
    if one.distinct > max(50, rows // 2):
        return None
    return f"{{type: categorical, min_count: {2 if one.distinct > 20 else 1}}}"


def _text(
    name: str,
    path: str,
    format_: str,
    frame: DataFrame,
    label: _Seen,
    ids: Sequence[str],
    split: str,
    features: dict[str, str],
) -> str:
    schema = ", ".join(f"{quoted(field.name)} {field.dataType.simpleString()}" for field in frame.schema)
    lines = [
        f"# Proposed for {path}; every line is yours to change.",
        "source:",
        "  inputs:",
        f"    table: {{path: {_quoted(path)}, format: {format_}, schema: {_quoted(schema)}}}",
        f"  id: {_quoted(list(ids))}   # what identifies a row; empty means all its values",
        "",
        f"label: {{column: {_quoted(label.name)}, type: {_label_type(label)}}}   # {label.distinct} values seen",
        f"split: {split}",
        "",
        "features:   # columns without information, and texts of which nearly all differ, are left out",
        *(f"  {_key(column)}: {_with_column(column, text)}" for column, text in features.items()),
        "",
        f"dataset: {{url: {_quoted(f'workspace/{name}')}}}",
        f"training: {{run_url: {_quoted(f'workspace/runs/{name}')}, epochs: 5}}",
    ]
    return "\n".join(lines) + "\n"


def _key(column: str) -> str:
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in column)
    return plain if plain[:1].isalpha() else f"f_{plain}"


def _with_column(column: str, text: str) -> str:
    return text if _key(column) == column else f"{{column: {_quoted(column)}, {text[1:]}"


def _quoted(value: object) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        .strip()
        .removesuffix("...")
        .strip()
    )


def write_proposal(session: SparkSession, path: str, target: str, label: str | None = None) -> None:
    """Write `propose` to a file that is not there yet.

    Raises:
        DataError: no column can be the label.
        OutputError: the file exists.
    """
    if not storage.put_if_absent(target, propose(session, path, label).encode()):
        raise OutputError(f"{target} exists; expected a new file; choose another name or remove it")
