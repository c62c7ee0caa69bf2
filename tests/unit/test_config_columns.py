"""Names of published columns: each stands for one thing, which the configuration alone tells."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import PipelineConfig, parse_config
from pipeline.config.columns import plain_columns
from pipeline.errors import ConfigError

NUMBER: dict[str, Any] = {"type": "numeric"}


def config_of(**sections: Any) -> PipelineConfig:
    return parse_config({"features": {"x": NUMBER}, "dataset": {"url": "/data"}, **sections})


def offences(**sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_of(**sections)
    return [offence.split("; ")[0] for offence in caught.value.offences]


def test_columns_of_two_features_and_of_a_feature_and_a_label_or_weight_are_refused_all_at_once() -> None:
    features = {
        "x": {**NUMBER, "indicator": True},
        "x_missing": NUMBER,
        "when": {"type": "timestamp", "parts": ["hour", "year"], "cyclic": True},
        "when_hour_sin": NUMBER,
        "when_hour": NUMBER,
        "late": NUMBER,
    }
    label = {"column": ["was_late", "when_year"], "weight": "x_missing"}
    features["late"] = {**NUMBER, "column": "x"}
    assert offences(features=features, label=label) == [
        "features.x and features.x_missing make the same column x_missing",
        "features.when and features.when_hour_sin make the same column when_hour_sin",
        "label.column when_year is a column that features.when makes too",
        "label.weight x_missing is a column that features.x makes too",
        "label.weight x_missing is a column that features.x_missing makes too",
    ]


def test_a_weight_is_no_feature_under_its_own_name() -> None:
    label = {"column": "late", "weight": "x"}
    assert offences(label=label) == ["label.weight x is a column that features.x makes too"]


def test_an_id_or_kept_column_takes_no_name_that_is_taken() -> None:
    features = {"x": NUMBER, "raw_x": {**NUMBER, "column": "z"}}
    kept = {"url": "/data", "keep": ["x", "_packed_float32"]}
    assert offences(features=features, dataset=kept) == [
        "dataset.keep x is published as raw_x, which is the name of another column",
        "dataset.keep _packed_float32 is published as _packed_float32, which is the name of another column",
    ]
    assert offences(source={"id": ["raw_x"]}, dataset={"url": "/data", "keep": ["x"]}) == [
        "dataset.keep x is published as raw_x, which is the name of another column"
    ]


def test_a_raw_column_beside_a_feature_of_its_name_gets_a_name_that_says_so() -> None:
    features = {"x": NUMBER, "seen": {"type": "timestamp", "parts": ["hour"]}}
    config = config_of(
        features=features,
        source={"id": ["x", "day"]},
        label={"column": "late"},
        dataset={"url": "/data", "keep": ["seen", "late", "day", "x"]},
    )
    assert plain_columns(config) == [("raw_x", "x"), ("day", "day"), ("seen", "seen")]
