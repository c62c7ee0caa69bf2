"""How two versions of a dataset are compared, and what becomes of a version that cannot be read."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import storage
from pipeline.config import PipelineConfig, parse_config
from pipeline.config.data import DriftConfig
from pipeline.dataset import version_url
from pipeline.errors import StorageError
from pipeline.features import FittedFeatures, Kind, canonical, fit_features
from pipeline.features.target import FOLD, LABEL
from pipeline.preparation.drift import compare, drift_of, previous_version
from pipeline.preparation.known import known_categories, vocabularies
from pipeline.preparation.profile import PROFILE_FORMAT, measured, profiles
from tests.small_model import small_dataset

LIMITS = DriftConfig()
ROWS = 20_000


def config_for(url: str, action: str) -> PipelineConfig:
    dataset = {"url": url, "drift": {"action": action}}
    features = {"x": {"type": "numeric"}}
    return parse_config({"features": features, "dataset": dataset, "training": {"run_url": f"{url}/run"}})


def profile_of(kind: Kind, values: Any) -> dict[str, Any]:
    """As it is written and read again."""
    found = measured(profiles({"c": kind}, ()), {"c": canonical(values, kind)})
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_all_columns_of_the_query_and_their_types_are_compared(tmp_path: Path) -> None:
    dataset = small_dataset(str(tmp_path / "data"), 50)
    profile = storage.join(version_url(dataset.url, dataset.content_id), "profile.json")
    storage.write_json(profile, *PROFILE_FORMAT, {"query": {"x": "double", "extra": "int"}, "columns": {}})
    previous = previous_version(config_for(dataset.url, "fail"))
    assert previous is not None
    new = {"query": {"x": "string", "brand_new": "int"}, "columns": {}}
    assert drift_of(previous, new, {}, LIMITS) == [
        "column brand_new is new",
        "column extra is gone",
        "column x was double and is string",
    ]
    assert previous_version(config_for(dataset.url, "off")) is None
    assert previous_version(config_for(str(tmp_path / "nothing"), "fail")) is None


def test_a_previous_version_that_cannot_be_read_is_an_error_where_drift_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = small_dataset(str(tmp_path / "data"), 50)
    with pytest.raises(StorageError, match="profile"):
        previous_version(config_for(dataset.url, "fail"))
    with caplog.at_level(logging.WARNING, "pipeline"):
        assert previous_version(config_for(dataset.url, "warn")) is None
    assert "nothing is compared" in caplog.text


def normal(mean: float, seed: int, scale: float = 1.0) -> Any:
    return np.random.default_rng(seed).normal(mean, scale, ROWS)


def moments(year: int, seed: int) -> Any:
    seconds = np.random.default_rng(seed).integers(0, 365 * 86_400, ROWS)
    return np.datetime64(f"{year}-01-01", "us") + seconds.astype("timedelta64[s]")


NUMBERS: dict[str, tuple[Kind, Any, Any, Any]] = {
    "temperatures in Kelvin": ("number", normal(290, 1), normal(290, 2), normal(294, 3)),
    "years": ("number", 2010 + np.arange(ROWS) % 4, 2010 + np.arange(ROWS)[::-1] % 4, 2030 + np.arange(ROWS) % 4),
    "moments": ("timestamp", moments(2024, 1), moments(2024, 2), moments(2025, 3)),
    "zeros and more": (
        "number",
        np.where(np.arange(ROWS) % 9, 0.0, normal(5, 1)),
        np.where(np.arange(ROWS) % 9, 0.0, normal(5, 2)),
        np.where(np.arange(ROWS) % 9, -1.0, normal(5, 3)),
    ),
    "many powers of ten": ("number", np.exp(normal(0, 1, 9)), np.exp(normal(0, 2, 9)), np.exp(normal(9, 3, 9))),
    "texts": ("string", *([f"k{i % 700}" for i in np.arange(ROWS) // divisor] for divisor in (1, 3, 90))),
}


@pytest.mark.parametrize("what", list(NUMBERS))
def test_another_sample_of_a_column_is_no_drift_and_values_that_moved_are(what: str) -> None:
    kind, old, same, moved = NUMBERS[what]
    profile = profile_of(kind, old)
    assert compare(profile, profile_of(kind, same), LIMITS) == []
    (finding,) = compare(profile, profile_of(kind, moved), LIMITS)
    assert finding.startswith("column c: population stability index is ")


def test_few_rows_of_many_categories_differ_by_chance_and_that_is_no_drift() -> None:
    random = np.random.default_rng(5)
    old, new = ([f"k{value}" for value in random.integers(0, 500, 2000)] for _ in range(2))
    assert compare(profile_of("string", old), profile_of("string", new), LIMITS) == []


OLD = [f"k{i % 2000}" for i in range(ROWS)]
HALF_NEW = [f"k{i % 1000}" if i % 2 else f"new{i}" for i in range(ROWS)]
FEATURES: dict[str, tuple[dict[str, Any], Kind, Any]] = {
    "categorical": ({"type": "categorical"}, "string", str),
    "normalized": ({"type": "categorical", "normalize": {"case": "lower"}}, "string", str.upper),
    "sensitive": ({"type": "categorical", "sensitive": True}, "string", str),
    "target-encoded": ({"type": "target"}, "string", str),
    "multi-valued": ({"type": "categories", "length": 2}, "strings", lambda text: [text]),
    "of a column of numbers": ({"type": "categorical"}, "number", lambda text: float(text.lstrip("knew"))),
    "hashed": ({"type": "hashed", "buckets": 50}, "string", str),
}
"""Features with the kind of their column, and what is made of a text to have a value of it."""


def unseen(feature: dict[str, Any], kind: Kind, old: list[Any], new: list[Any], limit: float = 0.05) -> list[str]:
    """What is found when a version with other values follows one."""
    config = parse_config({"features": {"c": feature}, "label": {"column": "y"}, "dataset": {"url": "/data"}}).features
    label = {LABEL: np.zeros(ROWS), FOLD: np.arange(ROWS)}
    sensitive = ["c"] if feature.get("sensitive") else []
    fits = {"features": fit_features(config), **profiles({"c": kind}, sensitive)}
    found = measured(fits, {"c": canonical(old, kind), **label})
    features, _ = found.pop("features")
    coverage = {name: dataclasses.asdict(one.coverage) for name, one in vocabularies(features).items()}
    read = FittedFeatures.from_json(json.loads(json.dumps(features.to_json())))
    known = known_categories({"columns": found, "coverage": coverage}, read, {"c": kind})
    seen = measured({str(place): one.fit() for place, one in enumerate(known)}, {"c": canonical(new, kind), **label})
    return [finding for one, cover in zip(known, seen.values(), strict=True) for finding in one.unseen(cover, limit)]


@pytest.mark.parametrize("what", list(FEATURES))
def test_rows_of_unseen_categories_are_counted_however_many_categories_there_are(what: str) -> None:
    feature, kind, value = FEATURES[what]
    old, new = ([value(text) for text in texts] for texts in (OLD, HALF_NEW))
    if kind == "number":
        new = [number if place % 2 else number + 5000 for place, number in enumerate(new)]
    assert unseen(feature, kind, old, old[::-1]) == []
    (finding,) = unseen(feature, kind, old, new)
    expected = "0.500 of the values are unseen categories; limit 0.05"
    if what == "hashed":  # known by the profile alone, which has a thousand of the two thousand
        expected = "0.950 of the values are unseen categories, where 0.500 were too rare before; limit 0.05"
    assert finding == f"column c: {expected}"


def test_what_was_too_rare_for_the_vocabulary_is_not_unseen_as_long_as_it_is_not_more() -> None:
    feature = {"type": "categorical", "min_count": 100}
    old = ["often"] * 15_000 + [f"rare {place}" for place in range(5000)]
    same = ["often"] * 15_000 + [f"other {place}" for place in range(5000)]
    more = ["often"] * 10_000 + [f"other {place}" for place in range(10_000)]
    assert unseen(feature, "string", old, same, 0.06) == []
    assert unseen(feature, "string", old, more, 0.06) == [
        "column c: 0.500 of the values are unseen categories, where 0.200 were too rare before; limit 0.06"
    ]


def test_rare_values_that_the_profile_has_are_known() -> None:
    feature = {"type": "categorical", "min_count": 100}
    old = ["often"] * 19_980 + ["rare"] * 20
    assert unseen(feature, "string", old, ["often"] * 10_000 + ["rare"] * 10_000) == []
    assert unseen(feature, "string", old, ["often"] * 18_000 + ["new"] * 2000) == [
        "column c: 0.100 of the values are unseen categories; limit 0.05"
    ]


def test_a_column_that_is_read_as_another_kind_is_said_to_be() -> None:
    old, new = profile_of("string", ["1", "2"]), profile_of("number", [1, 2])
    assert compare(old, new, LIMITS) == ["column c was read as string and is read as number"]
