"""Features that would keep values of a sensitive column in their state are refused, by the settings that would."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import ConfigError
from pipeline.preparation.sensitive import check_sensitive_features


def config(*sensitive: str, **features: Any) -> PipelineConfig:
    return parse_config(
        {
            "source": {"sensitive": list(sensitive)},
            "features": features,
            "label": {"column": "late"},
            "dataset": {"url": "/data"},
            "training": {"run_url": "/run"},
        }
    )


def test_settings_that_keep_a_value_of_a_row_are_named() -> None:
    features = {
        "pay": {"type": "numeric", "clip": "iqr", "scale": "min_max"},
        "rank": {"type": "bucket", "column": "pay", "quantiles": 4},
        "age": {"type": "elapsed", "column": "sold", "since_column": "born", "scale": "robust", "missing": "mode"},
        "name": {"type": "target"},
        "shade": {"type": "hashed", "column": "name", "buckets": 9, "missing": "mode"},
        "birth": {"type": "timestamp", "column": "born", "parts": ["month", "year"]},
        "plain": {"type": "numeric"},
    }
    with pytest.raises(ConfigError) as caught:
        check_sensitive_features(config("pay", "born", "name", **features))
    assert [offence.split("; expected")[0] for offence in caught.value.offences] == [
        "features.pay would keep values of sensitive column pay: missing is median",
        "features.pay would keep values of sensitive column pay: clip is set",
        "features.pay would keep values of sensitive column pay: scale is min_max",
        "features.rank would keep values of sensitive column pay: it has quantiles",
        "features.age would keep values of sensitive column born: missing is mode",
        "features.age would keep values of sensitive column born: scale is robust",
        "features.name would keep values of sensitive column name: its type is target",
        "features.shade would keep values of sensitive column name: missing is mode",
        "features.birth would keep values of sensitive column born: its parts have year, of which the first and the "
        "last are kept",
    ]


def test_sums_over_rows_digests_and_given_bounds_are_not() -> None:
    features = {
        "pay": {"type": "numeric", "missing": "mean", "log1p": True},
        "level": {"type": "bucket", "column": "pay", "boundaries": [1, 2]},
        "age": {"type": "elapsed", "column": "born", "since": "2024-01-01", "missing": 0},
        "name": {"type": "categorical", "missing": "mode"},
        "place": {"type": "hashed", "buckets": 7},
        "birthday": {"type": "timestamp", "column": "born", "parts": ["month", "day"]},
    }
    check_sensitive_features(config("pay", "born", "name", "place", **features))
