"""DRIVER. What the train rows look like, column by column.

The profile is measured in the passes that fit the features, so it mostly costs no scan of its own. Quantiles are exact
to one in `pipeline.features.histogram.RESOLUTION` of the rows, and mostly to a thousandth of the column's spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.features import Kind
from pipeline.features.distinct import Distinct
from pipeline.features.exact import Moments
from pipeline.features.histogram import histogram
from pipeline.features.kinds import Array, Raw
from pipeline.features.names import Names
from pipeline.features.numeric import Finite
from pipeline.features.sketches import Fitting, Present, Sketch, Values, ask, result_of, side_by_side
from pipeline.features.texts import Texts
from pipeline.preparation.label import staged_labels

_Sketches = list[tuple[Any, Sketch]]

PROFILE_FORMAT = ("profile", 1)
_TOP, _TOP_SHOWN = 1000, 5
_SHOWN_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def profiles(kinds: Mapping[str, Kind], sensitive: Sequence[str]) -> dict[str, Fitting]:
    """One fit per raw column, each ending with its profile."""
    return {name: _profile(name, kind, name in sensitive) for name, kind in kinds.items()}


def kept_kinds(config: PipelineConfig, schema: T.StructType) -> dict[str, Kind]:
    """The kept columns that have a profile, by the kind of their type."""
    types: dict[type[T.DataType], Kind] = {T.StringType: "string", T.TimestampType: "timestamp"}
    types |= {T.BooleanType: "boolean", T.DoubleType: "number", T.FloatType: "number"}
    types |= {T.ByteType: "number", T.ShortType: "number", T.IntegerType: "number", T.LongType: "number"}
    kept = {name: types.get(type(schema[name].dataType)) for name in config.dataset.keep}
    return {name: kind for name, kind in kept.items() if kind is not None and name not in config.labels}


def label_profiles(config: PipelineConfig) -> dict[str, Fitting]:
    """The profile of each label, as it is staged."""
    kind: Kind = "string" if config.label_type == "multiclass" else "number"
    labels = staged_labels(config.label)
    return {column: _profile(staged, kind, column in config.source.sensitive) for staged, column in labels.items()}


@dataclass(frozen=True)
class _Column:
    """A column as it is."""

    column: str

    def __call__(self, raw: Raw) -> Array | Texts:
        return raw[self.column]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Microseconds:
    """A column of timestamps as numbers."""

    column: str

    def __call__(self, raw: Raw) -> Array:
        values = raw[self.column]
        return np.where(np.isnat(values), np.nan, values.astype(np.int64).astype(np.float64))


def measured(fits: Mapping[str, Fitting], raw: Raw) -> dict[str, Any]:
    """The profiles of columns that are in memory."""
    running, answers = side_by_side([*fits.values()]), cast(Any, None)
    while True:
        try:
            wants = running.send(answers)
        except StopIteration as end:
            return dict(zip(fits, end.value, strict=True))
        answers = [result_of(want.sketch, want.sketch.cells(want.prepared(raw))) for want in wants]


def shown(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A profile for people: a few of the most frequent values, no cells, and moments as such."""
    plain = {name: value for name, value in profile.items() if name not in ("cells", "top", "top_is_all")}
    if "top" in profile:
        plain["top"] = profile["top"][:_TOP_SHOWN]
    if profile["kind"] == "timestamp" and "mean" in profile:
        plain |= {name: _moment(profile[name]) for name in ("mean", "min", "max")}
        plain["quantiles"] = {name: _moment(value) for name, value in profile["quantiles"].items()}
        del plain["std"]
    return plain


def _moment(microseconds: float) -> str:
    return str(np.datetime64(round(microseconds), "us").astype("datetime64[s]"))


def _profile(name: str, kind: Kind, sensitive: bool) -> Fitting:
    """What is asked for in the first round is answered in one pass; equal questions of features are answered once."""
    if kind == "string" and not sensitive:
        return (yield from _of_texts(name))
    if kind not in ("vector", "strings", "string") and not sensitive:
        return (yield from _of_numbers(name, kind))
    return _counts(kind, (yield from ask((name,), _Column(name), Present())))


def _counts(kind: Kind, found: tuple[int, int]) -> dict[str, Any]:
    rows, present = found
    return {"kind": kind, "rows": rows, "missing": rows - present}


def _of_texts(name: str) -> Fitting:
    """The most frequent texts; where there are more, an estimate of how many are distinct."""
    sketches: _Sketches = [(_Column(name), Present()), (Names(name), Values(_TOP + 1)), (Names(name), Distinct())]
    counts, top, distinct = yield from side_by_side([ask((name,), *one) for one in sketches])
    is_all = len(top) <= _TOP
    distinct = len(top) if is_all else min(max(distinct, len(top)), counts[1])
    shown = {"top": [list(pair) for pair in top[:_TOP]], "top_is_all": is_all}
    return {**_counts("string", counts), "distinct": distinct, **shown}


def _of_numbers(name: str, kind: Kind) -> Fitting:
    """Moments and cells of the finite numbers; where cells hold several, an estimate of how many are distinct."""
    numbers = _Microseconds(name) if kind == "timestamp" else Finite(name)
    sketches: _Sketches = [(_Column(name), Present()), (numbers, Moments()), (numbers, Distinct())]
    asked = [ask((name,), *one) for one in sketches]
    counts, moments, distinct, cells = yield from side_by_side([*asked, histogram((name,), numbers)])
    if moments is None:
        return _counts(kind, counts)
    shown = {name: getattr(moments, name) for name in ("count", "mean", "std", "min", "max")}
    shown["distinct"] = cells.distinct or min(max(distinct, len(cells.count)), moments.count)
    quantiles = zip(_SHOWN_QUANTILES, cells.quantiles(_SHOWN_QUANTILES), strict=True)
    shown["quantiles"] = {f"{fraction:g}": value for fraction, value in quantiles}
    return {**_counts(kind, counts), **shown, "cells": cells.coarser().to_json()}
