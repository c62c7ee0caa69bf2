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

from pipeline.config import PipelineConfig
from pipeline.config.data import DriftConfig
from pipeline.errors import DataError
from pipeline.features import Kind
from pipeline.features.kinds import Array, is_missing
from pipeline.features.sketches import Bins, Cells, Fitting, Moments, MomentsResult, Values, Want, float_of_bits

logger = logging.getLogger(__name__)

PROFILE_FORMAT = ("profile", 1)
_TOP = 1000
_SHOWN_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def profiles(kinds: Mapping[str, Kind], sensitive: Sequence[str]) -> dict[str, Fitting]:
    """One fit per raw column, each ending with its profile."""
    return {name: _profile(name, kind, name in sensitive) for name, kind in kinds.items()}


@dataclass(frozen=True)
class _Numbers:
    """A column as numbers: microseconds for timestamps, 1 where missing if ``only_missing``."""

    column: str
    only_missing: bool = False

    def __call__(self, raw: Mapping[str, Array]) -> Array:
        values = raw[self.column]
        if self.only_missing:
            return is_missing(values).astype(np.float64)
        if values.dtype.kind == "M":
            return np.where(np.isnat(values), np.nan, values.astype(np.int64).astype(np.float64))
        return np.where(np.isfinite(values), values, np.nan)


@dataclass(frozen=True)
class _Texts:
    column: str

    def __call__(self, raw: Mapping[str, Array]) -> Array:
        return raw[self.column]


def _profile(name: str, kind: Kind, sensitive: bool) -> Fitting:
    present: MomentsResult | None = yield Want((name,), _Numbers(name, only_missing=True), Moments())
    rows = present.count if present else 0
    missing = round(present.mean * rows) if present else 0
    profile: dict[str, Any] = {"kind": kind, "rows": rows, "missing": missing}
    if sensitive or kind in ("vector", "strings"):
        return profile
    if kind == "string":
        top: list[tuple[str, int]] = yield Want((name,), _Texts(name), Values(_TOP))
        return {**profile, "top": [[value, count] for value, count in top], "top_is_all": len(top) < _TOP}
    moments: MomentsResult | None = yield Want((name,), _Numbers(name), Moments())
    cells: Cells = yield Want((name,), _Numbers(name), Bins())
    if moments is None:
        return profile
    bins = list(zip(cells.key.tolist(), cells.count.tolist(), strict=True))
    return {**profile, **vars(moments), "quantiles": _quantiles(cells), "bins": [list(one) for one in bins]}


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
