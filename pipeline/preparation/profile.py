"""DRIVER. What the train rows look like, column by column.

The profile is measured in the passes that fit the features, so it costs no scan of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.features import Kind
from pipeline.features.categorical import Names
from pipeline.features.distinct import Distinct
from pipeline.features.exact import Moments, MomentsResult
from pipeline.features.kinds import Array, Raw
from pipeline.features.numeric import Finite
from pipeline.features.quantiles import Bins
from pipeline.features.sketches import Cells, Fitting, Present, Sketch, Values, ask, float_of_bits, side_by_side
from pipeline.features.texts import Texts
from pipeline.preparation.label import staged_labels

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
        answers = [want.sketch.result(want.sketch.cells(want.prepared(raw))) for want in wants]


def shown(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A profile for people: a few of the most frequent values, no bins, and moments as such."""
    plain = {name: value for name, value in profile.items() if name not in ("bins", "top", "top_is_all")}
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
    """Everything is asked for in one round, and equal questions of features are answered once."""
    sketches: list[tuple[Any, Sketch]] = [(_Column(name), Present())]
    if kind == "string" and not sensitive:
        sketches += [(Names(name), Values(_TOP)), (Names(name), Distinct())]
    elif kind not in ("vector", "strings", "string") and not sensitive:
        numbers = _Microseconds(name) if kind == "timestamp" else Finite(name)
        sketches += [(numbers, Moments()), (numbers, Bins()), (numbers, Distinct())]
    found = yield from side_by_side([ask((name,), prepared, sketch) for prepared, sketch in sketches])
    rows, present = found[0]
    profile: dict[str, Any] = {"kind": kind, "rows": rows, "missing": rows - present}
    if len(found) == 3:
        top, distinct = found[1:]
        is_all = len(top) < _TOP
        shown = {"top": [list(pair) for pair in top], "top_is_all": is_all}
        return {**profile, "distinct": len(top) if is_all else distinct, **shown}
    if len(found) == 4 and found[1] is not None:
        return {**profile, **_distribution(*found[1:])}
    return profile


def _distribution(moments: MomentsResult, cells: Cells, distinct: int) -> dict[str, Any]:
    """Few distinct numbers have a bin each, and are counted by them; of many the sketch says about how many."""
    shown = {name: getattr(moments, name) for name in ("count", "mean", "std", "min", "max")}
    bins = [list(pair) for pair in zip(cells.key.tolist(), cells.count.tolist(), strict=True)]
    shown["distinct"] = len(bins) if (cells.low == cells.high).all() else distinct
    return {**shown, "quantiles": _quantiles(cells), "bins": bins}


def _quantiles(cells: Cells) -> dict[str, float]:
    """Quantiles to within a sixteenth of their power of two: the highest value of the bin that holds them."""
    cumulative = np.cumsum(cells.count)
    places = {q: np.searchsorted(cumulative, max(1, math.ceil(q * cumulative[-1]))) for q in _SHOWN_QUANTILES}
    return {f"{q:g}": float(float_of_bits(cells.high[at : at + 1])[0]) for q, at in places.items()}
