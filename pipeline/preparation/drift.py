"""DRIVER. How far what the train rows look like is from the previous version of the dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.data import DriftConfig
from pipeline.dataset import Dataset, commit_numbers, version_url
from pipeline.errors import DataError, StorageError
from pipeline.features import FittedFeatures, Kind
from pipeline.features.histogram import Histogram
from pipeline.features.kinds import Array
from pipeline.features.vocabulary import Coverage
from pipeline.preparation.known import Known, known_categories
from pipeline.preparation.profile import PROFILE_FORMAT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Previous:
    """What the newest version looked like, and how it was encoded."""

    profile: Mapping[str, Any]
    features: FittedFeatures

    def known(self, kinds: Mapping[str, Kind]) -> list[Known]:
        """The categories that it had, in those raw columns that are read as they were then."""
        return known_categories(self.profile, self.features, kinds)


def previous_version(config: PipelineConfig) -> Previous | None:
    """What is to be compared with; None if there is nothing, or `dataset.drift.action` is off.

    Raises:
        StorageError: the newest version cannot be read, and `dataset.drift.action` is fail.
    """
    url, action = config.dataset.url, config.dataset.drift.action
    if action == "off" or not commit_numbers(url):
        return None
    try:
        newest = Dataset.open(url)
        profile = storage.read_json(storage.join(version_url(url, newest.content_id), "profile.json"), *PROFILE_FORMAT)
        return Previous(profile, FittedFeatures.from_json(newest.manifest.statistics))
    except StorageError as error:
        if action == "fail":
            raise
        logger.warning("drift: the previous version cannot be read, so nothing is compared: %s", error)
        return None


def drift_of(
    previous: Previous, profile: Mapping[str, Any], known: Mapping[Known, Coverage], limits: DriftConfig
) -> list[str]:
    """How a new version differs from the previous one by more than the limits, one sentence each.

    Args:
        previous: the version before.
        profile: of the new one.
        known: how much of the new train rows the categories of `Previous.known` cover.
        limits: the thresholds.
    """
    old = previous.profile
    types = compare_types(old["query"], profile["query"]) if "query" in old else []
    unseen = [finding for one, found in known.items() for finding in one.unseen(found, limits.unseen_rate)]
    return [*types, *compare(old["columns"], profile["columns"], limits), *dict.fromkeys(unseen)]


def compare_types(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """How the columns of two queries differ: name to type."""
    findings = [f"column {name} is new" for name in new if name not in old]
    findings += [f"column {name} is gone" for name in old if name not in new]
    both = [name for name in new if name in old]
    return findings + [f"column {n} was {old[n]} and is {new[n]}" for n in both if old[n] != new[n]]


def compare(old: Mapping[str, Any], new: Mapping[str, Any], limits: DriftConfig) -> list[str]:
    """What differs between the profiles of two versions, by column name, by more than the limits."""
    both = [name for name in new if name in old]
    return [finding for name in both for finding in _compare_column(name, old[name], new[name], limits)]


def _compare_column(name: str, old: Mapping[str, Any], new: Mapping[str, Any], limits: DriftConfig) -> list[str]:
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
    return findings


def stability_index(old: Mapping[str, Any], new: Mapping[str, Any]) -> float | None:
    """Population stability index: sum of (p - q) ln(p / q) over tenths of the old values, or old categories.

    Shares below 1e-4 count as 1e-4. What samples of one distribution would have on average is taken off, since with
    many categories and few rows it is much (B. Yurdakul, J. Naranjo: Statistical properties of the population stability
    index, 2020). None where one of the columns has no distribution.
    """
    if old.get("cells") and new.get("cells"):
        groups = _rows_by_tenth(*(Histogram.from_json(one["cells"]) for one in (old, new)))
    elif old.get("top") and new.get("top"):
        names = [value for value, _ in old["top"]]
        groups = [_rows_by_name(one, names) for one in (old, new)]
    else:
        return None
    rows = [max(1.0, group.sum()) for group in groups]
    p, q = (np.maximum(group / total, 1e-4) for group, total in zip(groups, rows, strict=True))
    by_chance = float((len(p) - 1) * sum(1 / total for total in rows))
    index = float(((p - q) * np.log(p / q)).sum())
    return max(0.0, index - by_chance)


def _rows_by_tenth(old: Histogram, new: Histogram) -> list[Array]:
    edges = old.tenths()
    return [np.diff(one.share_up_to(edges), prepend=0.0, append=1.0) * one.total for one in (old, new)]


def _rows_by_name(profile: Mapping[str, Any], names: Sequence[str]) -> Array:
    counts = dict(map(tuple, profile["top"]))
    known = [counts.get(name, 0) for name in names]
    return np.array([*known, profile["rows"] - profile["missing"] - sum(known)], dtype=np.float64)


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
