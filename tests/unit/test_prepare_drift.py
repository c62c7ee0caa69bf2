"""How two versions of a dataset are compared, and what becomes of a version that cannot be read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.config import PipelineConfig, parse_config
from pipeline.config.data import DriftConfig
from pipeline.dataset import version_url
from pipeline.errors import StorageError
from pipeline.preparation.drift import compare, drift_of
from pipeline.preparation.profile import PROFILE_FORMAT
from tests.small_model import small_dataset

NEW = {"query": {"x": "string", "brand_new": "int"}, "columns": {}}


def config_for(url: str, action: str) -> PipelineConfig:
    dataset = {"url": url, "drift": {"action": action}}
    features = {"x": {"type": "numeric"}}
    return parse_config({"features": features, "dataset": dataset, "training": {"run_url": f"{url}/run"}})


def test_all_columns_of_the_query_and_their_types_are_compared(tmp_path: Path) -> None:
    dataset = small_dataset(str(tmp_path / "data"), 50)
    profile = storage.join(version_url(dataset.url, dataset.content_id), "profile.json")
    storage.write_json(profile, *PROFILE_FORMAT, {"query": {"x": "double", "extra": "int"}, "columns": {}})
    assert drift_of(config_for(dataset.url, "fail"), NEW) == [
        "column brand_new is new",
        "column extra is gone",
        "column x was double and is string",
    ]
    assert drift_of(config_for(dataset.url, "off"), NEW) == []
    assert drift_of(config_for(str(tmp_path / "nothing"), "fail"), NEW) == []


def test_a_previous_version_that_cannot_be_read_is_an_error_where_drift_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = small_dataset(str(tmp_path / "data"), 50)
    with pytest.raises(StorageError, match="profile"):
        drift_of(config_for(dataset.url, "fail"), NEW)
    with caplog.at_level(logging.WARNING, "pipeline"):
        assert drift_of(config_for(dataset.url, "warn"), NEW) == []
    assert "nothing is compared" in caplog.text


def test_a_value_too_rare_for_the_vocabulary_is_no_unseen_one() -> None:
    def profile(**counts: int) -> dict[str, Any]:
        top = [list(pair) for pair in counts.items()]
        return {"c": {"kind": "string", "rows": 100, "missing": 0, "top": top, "top_is_all": True}}

    old, limits = profile(a=91, rare=9), DriftConfig(unseen_rate=0.05, stability_index=9)
    assert compare(old, profile(a=91, rare=9), {"c": ["a"]}, limits) == []
    assert compare(old, profile(a=91, other=9), {"c": ["a"]}, limits) == [
        "column c: 0.090 of the values are unseen categories; limit 0.05"
    ]
