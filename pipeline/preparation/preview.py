"""DRIVER. What a preparation would do, from the first rows that its query gives; nothing is written.

They are the first, and no sample by hash, since that would read all of the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from pipeline.config import PipelineConfig
from pipeline.errors import DataError
from pipeline.features import Kind, canonical, raw_inputs
from pipeline.features.kinds import MICROSECONDS, Array
from pipeline.preparation.append import Base
from pipeline.preparation.clean import REASONS
from pipeline.preparation.columns import typed_name
from pipeline.preparation.inputs import Inputs, fingerprints
from pipeline.preparation.label import label_values, staged_labels
from pipeline.preparation.profile import kept_kinds, label_profiles, measured, profiles, shown
from pipeline.preparation.query import Query, listed_inputs
from pipeline.preparation.quoting import column
from pipeline.preparation.read import refuse_cut_texts, take_census
from pipeline.preparation.session import preparation_settings, spark_errors
from pipeline.preparation.split import split_of
from pipeline.preparation.text_files import FAULT

_ROWS = 10_000
_TEXT = 100
"""Characters of a text that come to the driver; of vectors and lists nothing does."""


def preview(session: SparkSession, config: PipelineConfig, frame: DataFrame | None = None) -> dict[str, Any]:
    """Validate against the real columns; count faults, rejections, splits and missing values of the first rows.

    Returns:
        JSON-able: files, bytes and parse faults per input; rows looked at, by split and by reason, and missing values
        by column; the profile of the rows that are fit; the columns with their types.

    Raises:
        ConfigError: `dataset.statistics_from` is of other features, or what is sensitive would be shown.
        InputMissingError: an input is missing, or the version of `dataset.statistics_from`.
        DataError: there are no rows, or none that can be parsed; columns are missing or of the wrong type.
    """
    inputs, base = listed_inputs(config, frame), Base.of(config)
    with preparation_settings(session, hides_values=bool(config.source.sensitive)) as own:
        query = Query.of(own, config, inputs, base, frame)
        queried = query.queried
        refuse_cut_texts(session, config, inputs, query.primary, first=_ROWS)
        faults = _faults(query.frames, config)
        kinds = {**kept_kinds(config, queried.schema), **raw_inputs(config.features)}
        readings = _readings(query.reasoned, config, kinds)
        with spark_errors("reading the first rows"):
            rows = _first_rows(queried, query.reasoned, config, readings)
    if not rows:
        raise DataError("the source has no rows; expected some; check paths, query and source.where")
    fit = [row for row in rows if not row["reasons"]]
    fits = {**profiles(kinds, config.source.sensitive), **label_profiles(config)}
    profile = measured(
        fits, {name: one.values([row[f"value {name}"] for row in fit]) for name, one in readings.items()}
    )
    return {
        "inputs": _inputs(inputs, faults),
        "sample": {
            "of": "the first rows",
            "rows": len(rows),
            "rejected": len(rows) - len(fit),
            "reasons": dict(sorted(Counter(reason for row in rows for reason in row["reasons"] or ()).items())),
            "splits": dict(sorted(Counter(row["split"] for row in fit).items())),
            "missing": {
                name: sum(row["missing"][place] for row in rows)
                for place, name in enumerate(queried.columns)
                if name not in config.source.sensitive
            },
        },
        "profile": {name: shown(one) for name, one in profile.items()},
        "columns": {name: queried.schema[name].dataType.simpleString() for name in queried.columns},
    }


def _faults(frames: Mapping[str, DataFrame], config: PipelineConfig) -> dict[str, dict[str, int]]:
    """Of the first rows of each text input, how many cannot be parsed.

    Raises:
        DataError: inputs of which none can, or whose texts are garbled.
    """
    first = {name: frame.limit(_ROWS) for name, frame in frames.items() if FAULT in frame.columns}
    found = take_census(first, config, primary="", listed=first)
    broken = {name: one.faults for name, one in found.items() if one.faults and not one.rows}
    if broken:
        raise DataError(
            *(
                f"none of the first {rows:,} rows of input {name} can be parsed; expected rows of its schema; mend the "
                "file, or its format, schema or options"
                for name, rows in broken.items()
            )
        )
    return {name: {"first_rows": one.rows + one.faults, "not_parsed": one.faults} for name, one in found.items()}


def _inputs(inputs: Inputs, faults: Mapping[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    prints = fingerprints(inputs)
    return {
        name: {"files": len(one["files"]), "bytes": one["bytes"], **faults.get(name, {})}
        for name, one in prints.items()
    }


@dataclass(frozen=True)
class _Reading:
    """How a column of the first rows comes to the driver: of what is not to be shown, whether there is a value."""

    column: Column
    kind: Kind

    @classmethod
    def of(cls, value: Column, kind: Kind, is_hidden: bool) -> _Reading:
        """Of a column as features read it."""
        if is_hidden or kind in ("vector", "strings"):
            return cls(F.when(value.isNotNull(), 1.0), "number")
        if kind == "timestamp":
            return cls(F.unix_micros(value.cast("timestamp")), kind)
        return cls(F.substring(value.cast("string"), 1, _TEXT) if kind == "string" else value, kind)

    def values(self, collected: Sequence[Any]) -> Array:
        """The canonical column."""
        if self.kind == "timestamp":
            return np.array([np.datetime64("NaT") if one is None else one for one in collected], dtype=MICROSECONDS)
        return canonical(collected, self.kind)


def _readings(reasoned: DataFrame, config: PipelineConfig, kinds: Mapping[str, Kind]) -> dict[str, _Reading]:
    """Raw columns and staged labels that are profiled, as features read them."""
    labels = staged_labels(config.label)
    there, hidden = set(reasoned.columns), config.source.sensitive
    columns = {name: column(typed_name(name) if typed_name(name) in there else name) for name in kinds}
    readings = {name: _Reading.of(columns[name], kind, name in hidden) for name, kind in kinds.items()}
    kind: Kind = "string" if config.label_type == "multiclass" else "number"
    values = zip(labels.items(), label_values(reasoned, config.label), strict=True)
    return {**readings, **{staged: _Reading.of(value, kind, name in hidden) for (staged, name), value in values}}


def _first_rows(
    queried: DataFrame, reasoned: DataFrame, config: PipelineConfig, readings: Mapping[str, _Reading]
) -> list[Row]:
    """What is counted of a row, and what is profiled."""
    flags = F.array(*(column(name).isNull() for name in queried.columns)).alias("missing")
    split = split_of(queried, config, config.source.id or queried.columns).alias("split")
    values = (one.column.alias(f"value {name}") for name, one in readings.items())
    return reasoned.select(flags, split, F.col(REASONS).alias("reasons"), *values).limit(_ROWS).collect()
