"""DRIVER. How far what the train rows look like is from the previous version of the dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.data import DriftConfig
from pipeline.dataset import Dataset, commit_numbers, version_url
from pipeline.errors import DataError, StorageError
from pipeline.features.kinds import Array
from pipeline.preparation.profile import PROFILE_FORMAT

logger = logging.getLogger(__name__)


def drift_of(config: PipelineConfig, profile: Mapping[str, Any]) -> list[str]:
    """How a new profile differs from that of the newest version; nothing if there is none.

    Raises:
        StorageError: that of the newest version cannot be read, and `dataset.drift.action` is fail.
    """
    url, limits = config.dataset.url, config.dataset.drift
    if limits.action == "off" or not commit_numbers(url):
        return []
    try:
        previous = Dataset.open(url)
        old = storage.read_json(storage.join(version_url(url, previous.content_id), "profile.json"), *PROFILE_FORMAT)
    except StorageError as error:
        if limits.action == "fail":
            raise
        logger.warning("drift: the previous version cannot be read, so nothing is compared: %s", error)
        return []
    features = previous.manifest.statistics.get("features", ())
    plain = (one for one in features if one["type"] == "categorical" and not any(one["text"].values()))
    vocabularies = {one["column"]: one["vocabulary"] for one in plain}
    types = compare_types(old["query"], profile["query"]) if "query" in old else []
    return types + compare(old["columns"], profile["columns"], vocabularies, limits)


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], vocabularies: Mapping[str, Sequence[str]], limits: DriftConfig
) -> list[str]:
    """What differs between two profiles by more than the limits, one sentence each.

    Args:
        old: column name to its profile, of the previous version.
        new: the same of this one.
        vocabularies: per raw column the categories that the previous version knew, beside those in its profile.
        limits: the thresholds.
    """
    findings = []
    for name in (name for name in new if name in old):
        findings += _compare_column(name, old[name], new[name], vocabularies.get(name), limits)
    return findings


def compare_types(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """How the columns of two queries differ: name to type."""
    findings = [f"column {name} is new" for name in new if name not in old]
    findings += [f"column {name} is gone" for name in old if name not in new]
    both = [name for name in new if name in old]
    return findings + [f"column {n} was {old[n]} and is {new[n]}" for n in both if old[n] != new[n]]


def _compare_column(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], vocabulary: Sequence[str] | None, limits: DriftConfig
) -> list[str]:
    if old["kind"] != new["kind"]:
        return [f"column {name} was read as {old['kind']} and is read as {new['kind']}"]
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
        # Of values that are rarer than `min_count` the vocabulary knows nothing.
        known = {*vocabulary, *(value for value, _ in old.get("top", ()))}
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
