"""DRIVER. What the train rows look like, column by column, and how far that is from the previous version.

The profile is measured in the passes that fit the features, so it costs no scan of its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.config.data import DriftConfig
from pipeline.errors import DataError
from pipeline.features import Kind
from pipeline.features.categorical import Names
from pipeline.features.exact import Moments, MomentsResult
from pipeline.features.kinds import Array, Raw
from pipeline.features.numeric import Finite
from pipeline.features.quantiles import Bins
from pipeline.features.sketches import Cells, Fitting, Present, Sketch, Values, ask, float_of_bits, side_by_side
from pipeline.features.texts import Texts
from pipeline.preparation.label import staged_labels

logger = logging.getLogger(__name__)

PROFILE_FORMAT = ("profile", 1)
_TOP = 1000
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


def _profile(name: str, kind: Kind, sensitive: bool) -> Fitting:
    """Everything is asked for in one round, and equal questions of features are answered once."""
    sketches: list[tuple[Any, Sketch]] = [(_Column(name), Present())]
    if kind == "string" and not sensitive:
        sketches.append((Names(name), Values(_TOP)))
    elif kind not in ("vector", "strings", "string") and not sensitive:
        numbers = _Microseconds(name) if kind == "timestamp" else Finite(name)
        sketches += [(numbers, Moments()), (numbers, Bins())]
    found = yield from side_by_side([ask((name,), prepared, sketch) for prepared, sketch in sketches])
    rows, present = found[0]
    profile: dict[str, Any] = {"kind": kind, "rows": rows, "missing": rows - present}
    if len(found) == 2:
        return {**profile, "top": [list(pair) for pair in found[1]], "top_is_all": len(found[1]) < _TOP}
    if len(found) == 3 and found[1] is not None:
        return {**profile, **_distribution(found[1], found[2])}
    return profile


def _distribution(moments: MomentsResult, cells: Cells) -> dict[str, Any]:
    shown = {name: getattr(moments, name) for name in ("count", "mean", "std", "min", "max")}
    bins = [list(pair) for pair in zip(cells.key.tolist(), cells.count.tolist(), strict=True)]
    return {**shown, "quantiles": _quantiles(cells), "bins": bins}


def _quantiles(cells: Cells) -> dict[str, float]:
    """Quantiles to within a sixteenth of their power of two: the highest value of the bin that holds them."""
    cumulative = np.cumsum(cells.count)
    places = {q: np.searchsorted(cumulative, max(1, math.ceil(q * cumulative[-1]))) for q in _SHOWN_QUANTILES}
    return {f"{q:g}": float(float_of_bits(cells.high[at : at + 1])[0]) for q, at in places.items()}


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], vocabularies: Mapping[str, Sequence[str]], limits: DriftConfig
) -> list[str]:
    """What differs between two profiles by more than the limits, one sentence each.

    Args:
        old: column name to its profile, of the previous version.
        new: the same of this one.
        vocabularies: per raw column the categories that the previous version knew.
        limits: the thresholds.
    """
    findings = [f"column {name} is new" for name in new if name not in old]
    findings += [f"column {name} is gone" for name in old if name not in new]
    for name in (name for name in new if name in old):
        findings += _compare_column(name, old[name], new[name], vocabularies.get(name), limits)
    return findings


def _compare_column(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], vocabulary: Sequence[str] | None, limits: DriftConfig
) -> list[str]:
    if old["kind"] != new["kind"]:
        return [f"column {name} was {old['kind']} and is {new['kind']}"]
    findings = []
    before, after = (one["missing"] / max(1, one["rows"]) for one in (old, new))
    if abs(after - before) > limits.missing_change:
        findings.append(
            f"column {name}: missing rate was {before:.3f} and is {after:.3f}; limit {limits.missing_change:g}"
        )
    index = stability_index(old, new)
    if index is not None and index > limits.stability_index:
        findings.append(f"column {name}: population stability index is {index:.3f}; limit {limits.stability_index:g}")
    if vocabulary is not None and "top" in new and new["rows"] > new["missing"]:
        known = set(vocabulary)
        unseen = sum(count for value, count in new["top"] if value not in known) / (new["rows"] - new["missing"])
        if unseen > limits.unseen_rate:
            findings.append(
                f"column {name}: {unseen:.3f} of the values are unseen categories; limit {limits.unseen_rate:g}"
            )
    return findings


def stability_index(old: Mapping[str, Any], new: Mapping[str, Any]) -> float | None:
    """Population stability index: sum of (p - q) ln(p / q) over tenths of the old values, or old categories.

    Shares below 1e-4 count as 1e-4. None where one of the columns has no distribution.
    """
    if "bins" in old and "bins" in new:
        edges = _tenths(old["bins"])
        groups = [
            np.bincount(
                np.searchsorted(edges, [k for k, _ in one["bins"]], side="left"),
                weights=[c for _, c in one["bins"]],
                minlength=len(edges) + 1,
            )
            for one in (old, new)
        ]
    elif old.get("top") and new.get("top"):
        names = [value for value, _ in old["top"]]
        groups = [_shares(dict(map(tuple, one["top"])), names) for one in (old, new)]
    else:
        return None
    p, q = (np.maximum(group / max(1.0, group.sum()), 1e-4) for group in groups)
    return float(((p - q) * np.log(p / q)).sum())


def _tenths(bins: Sequence[Sequence[int]]) -> list[int]:
    cumulative = np.cumsum([count for _, count in bins])
    places = {int(np.searchsorted(cumulative, cumulative[-1] * tenth / 10)) for tenth in range(1, 10)}
    return [bins[place][0] for place in sorted(places)]


def _shares(counts: Mapping[str, int], names: Sequence[str]) -> Array:
    known = [counts.get(name, 0) for name in names]
    return np.array([*known, sum(counts.values()) - sum(known)], dtype=np.float64)


def report_drift(findings: Sequence[str], config: PipelineConfig) -> None:
    """Warn of drift, or refuse it.

    Raises:
        DataError: every finding, if `dataset.drift.action` is fail.
    """
    if config.dataset.drift.action == "fail" and findings:
        raise DataError(
            *(
                f"{finding}; expected the previous version's; look at the input, or set dataset.drift"
                for finding in findings
            )
        )
    for finding in findings:
        logger.warning("drift: %s", finding)
