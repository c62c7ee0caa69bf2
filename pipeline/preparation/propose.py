"""DRIVER. Look at a table and choose label, id, split and features for a configuration that runs as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import parse_config
from pipeline.errors import DataError, InputMissingError
from pipeline.preparation.formats import format_of
from pipeline.preparation.inputs import files_at, list_inputs
from pipeline.preparation.proposal import Proposal, quoted_yaml
from pipeline.preparation.quoting import column, quoted
from pipeline.preparation.read import parsed, read_inputs
from pipeline.preparation.session import preparation_settings, spark_errors

_LABELS = ("label", "target", "y", "class", "outcome", "churn", "default")
_MOMENTS = (T.DateType, T.TimestampType, T.TimestampNTZType)
_PLAIN = (T.NumericType, T.StringType, T.BooleanType, *_MOMENTS)
_NAMED_ID = re.compile(r"(?:^|[\W_])(?:id|uuid|guid)s?$|^(?:id|uuid|guid)[\W_]", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z0-9](?:Id|ID|Uuid|UUID)$")
_MOST_CLASSES = 100
_FEW_ROWS = 100
"""Of fewer rows the values of a quantity may all differ too."""


@dataclass(frozen=True)
class _Seen:
    """What was counted of one column, and the lowest and highest of numbers and truth values."""

    name: str
    type: T.DataType
    present: int
    distinct: int
    low: float | None
    high: float | None

    @property
    def is_named_id(self) -> bool:
        """Whether it is called an id."""
        return bool(_NAMED_ID.search(self.name) or _CAMEL_ID.search(self.name))

    def all_differ(self, rows: int) -> bool:
        """Whether its values are all there and, as nearly as was counted, all different."""
        return self.present == rows and self.distinct > 0.95 * rows

    @property
    def is_moment(self) -> bool:
        """Whether it is a date or a time."""
        return isinstance(self.type, _MOMENTS)


def check_table(path: str) -> str:
    """Make sure that there is a table, before Spark starts; returns the format of its files.

    Raises:
        InputMissingError: nothing is there.
        DataError: its files are of several formats.
    """
    files = sorted(files_at(path))
    if not files:
        raise InputMissingError(f"{path} is missing; expected a table as CSV, JSON, Parquet or ORC; check the path")
    return format_of(path, files)


def propose(session: SparkSession, path: str, label: str | None = None) -> Proposal:
    """A configuration for a table: types, features, label, id, and a split by date where there is one.

    Args:
        session: to read with.
        path: a file, folder or glob pattern: CSV, JSON lines, Parquet or ORC.
        label: the column to predict; by default the one whose name or values look like it.

    Raises:
        DataError: no column can be the label, or none a feature.
        InputMissingError: nothing is there.
    """
    format_ = check_table(path)
    with preparation_settings(session), spark_errors(f"reading {path}"):
        frame = _frame(session, path, format_)
        rows, columns = _look(frame)
        chosen = _label(columns, label, rows)
        ids = _ids(frame, columns, chosen, rows)
        split, key = _split(frame, columns, chosen, rows)
    features, left_out = _features(frame, columns, {chosen.name, *ids}, rows)
    if not features:
        reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items()) or "there is no other column"
        raise DataError(f"{path} has no column to learn from: {reasons}; expected one beside label and id")
    return Proposal(
        path=path,
        format=format_,
        schema=", ".join(f"{quoted(field.name)} {field.dataType.simpleString()}" for field in frame.schema),
        label=chosen.name,
        label_type=_label_type(chosen),
        ids=ids,
        split=split,
        features=features,
        left_out=left_out,
        lacking=min(1.0, sum(rows - one.present for one in (chosen, key) if one) / max(rows, 1)),
    )


def _frame(session: SparkSession, path: str, format_: str) -> DataFrame:
    config = parse_config(
        {
            "source": {"inputs": {"table": {"path": path, "format": format_}}},
            "features": {"any": {"type": "numeric"}},
            "dataset": {"url": "any"},
            "training": {"run_url": "any-run"},
        }
    )
    return parsed(read_inputs(session, config, list_inputs(config))["table"])


def _look(frame: DataFrame) -> tuple[int, list[_Seen]]:
    """Count values and distinct values of all columns in one pass."""
    fields = [field for field in frame.schema if isinstance(field.dataType, _PLAIN)]
    asked = []
    for place, field in enumerate(fields):
        one = column(field.name)
        number = one if isinstance(field.dataType, (T.NumericType, T.BooleanType)) else F.lit(None)
        asked += [
            F.count(one).alias(f"p{place}"),
            F.approx_count_distinct(one, 0.02).alias(f"d{place}"),
            F.min(number.cast("double")).alias(f"l{place}"),
            F.max(number.cast("double")).alias(f"h{place}"),
        ]
    found = frame.agg(F.count(F.lit(1)).alias("rows"), *asked).collect()[0]
    return found["rows"], [
        _Seen(field.name, field.dataType, *(found[f"{what}{place}"] for what in "pdlh"))
        for place, field in enumerate(fields)
    ]


def _label(columns: Sequence[_Seen], wanted: str | None, rows: int) -> _Seen:
    by_name = {one.name.lower(): one for one in columns if one.distinct > 1}
    for name in [wanted.lower()] if wanted else _LABELS:
        if name in by_name:
            return by_name[name]
    usable = [
        one
        for one in columns
        if one.distinct > 1
        and not (one.is_moment or one.is_named_id)
        and not (isinstance(one.type, T.StringType) and one.distinct > _MOST_CLASSES)
        and not _is_counter(one, rows)
    ]
    two = [one for one in usable if one.distinct == 2]
    if wanted or not usable:
        names = ", ".join(one.name for one in columns if one.distinct > 1)
        raise DataError(
            f"label {wanted or ''} is not among the columns with several values; expected one of {names}; name it "
            "with --label"
        )
    return (two or usable)[-1]


def _label_type(label: _Seen) -> str:
    is_number = isinstance(label.type, (T.BooleanType, T.NumericType))
    if is_number and label.distinct == 2 and (label.low, label.high) == (0, 1):
        return "binary"
    is_quantity = isinstance(label.type, T.FractionalType) or label.distinct > _MOST_CLASSES
    return "regression" if is_number and is_quantity else "multiclass"


def _ids(frame: DataFrame, columns: Sequence[_Seen], label: _Seen, rows: int) -> tuple[str, ...]:
    """The first column whose values are all there and all different, named so if possible; nothing if there is none."""
    near = [
        one
        for one in columns
        if one.all_differ(rows) and one.name != label.name and not isinstance(one.type, T.FractionalType)
    ]
    for one in sorted(near, key=lambda one: not one.is_named_id):
        if frame.select(column(one.name)).distinct().count() == rows:
            return (one.name,)
    return ()


def _split(frame: DataFrame, columns: Sequence[_Seen], label: _Seen, rows: int) -> tuple[str, _Seen | None]:
    """The section, and the column with the time that it goes by."""
    by_hash = "{by: hash, validation: 0.1, test: 0.1}"
    dates = [one for one in columns if one.is_moment and one.name != label.name and one.present >= 0.95 * rows]
    if not dates:
        return by_hash, None
    date = max(dates, key=lambda one: one.present)
    name = quoted_yaml(date.name)
    if isinstance(date.type, T.DateType) and date.distinct >= 50:
        return f"{{by: group, key: {name}, validation: 0.1, test: 0.1}}   # rows of a day stay together", date
    seconds = F.unix_seconds(column(date.name).cast("timestamp"))
    cuts: list[float] = frame.select(seconds.alias("s")).approxQuantile("s", [0.8, 0.9], 0.001)
    if len(set(cuts)) < 2:
        return by_hash, None
    moments = frame.sparkSession.range(1).select(*(F.timestamp_seconds(F.lit(cut)) for cut in cuts))
    texts = [moment.isoformat() for moment in moments.collect()[0]]
    by_time = f"{{by: time, key: {name}, validation_from: '{texts[0]}', test_from: '{texts[1]}'}}"
    return f"{by_time}   # the last tenth is the test", date


def _features(
    frame: DataFrame, columns: Sequence[_Seen], taken: set[str], rows: int
) -> tuple[dict[str, str], dict[str, str]]:
    """The features that fit the columns, and why others are left out."""
    seen = {one.name: one for one in columns}
    features, left_out = {}, {}
    for field in frame.schema:
        if field.name in taken:
            continue
        if (one := seen.get(field.name)) is None:
            left_out[field.name] = f"of type {field.dataType.simpleString()[:40]}"
        elif reason := _reason_against(one, rows):
            left_out[field.name] = reason
        else:
            features[field.name] = _feature(one, rows)
    return features, left_out


def _reason_against(one: _Seen, rows: int) -> str | None:
    if one.distinct < 2:
        return "one value only"
    if one.is_named_id or _is_counter(one, rows):
        return "looks like an id"
    if isinstance(one.type, T.StringType) and one.distinct > max(50, rows // 2):
        return "nearly all values differ"
    return None


def _is_counter(one: _Seen, rows: int) -> bool:
    return isinstance(one.type, T.IntegralType) and rows >= _FEW_ROWS and one.all_differ(rows)


def _feature(one: _Seen, rows: int) -> str:
    indicator = ", indicator: true" if one.present < rows else ""
    if isinstance(one.type, T.BooleanType):
        return "{type: boolean}"
    if isinstance(one.type, T.NumericType):
        return f"{{type: numeric{indicator}}}"
    if one.is_moment:
        hour = "" if isinstance(one.type, T.DateType) else ", hour"
        return f"{{type: timestamp, parts: [month, weekday{hour}]}}"
    return f"{{type: categorical, min_count: {2 if one.distinct > 20 else 1}}}"
