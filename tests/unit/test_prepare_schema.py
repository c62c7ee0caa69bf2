"""Names of the columns of part files: each stands for one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import ConfigError
from pipeline.features.numeric import Numeric
from pipeline.preparation.schema import check_names
from tests.small_model import FEATURES


def config_of(label: str | list[str]) -> PipelineConfig:
    features: dict[str, Any] = {"any": {"type": "numeric", "column": "another"}}
    return parse_config({"features": features, "label": {"column": label}, "dataset": {"url": "data"}})


def number(name: str) -> Numeric:
    return Numeric(name, "another", fill=0.0, low=0.0, high=1.0, log1p=False, offset=0.0, scale=1.0, indicator=False)


def test_columns_of_two_features_and_of_a_feature_and_a_label_are_refused_all_at_once() -> None:
    twice = replace(FEATURES, features=(*FEATURES.features, number("amount_missing"), number("late")))
    with pytest.raises(ConfigError) as caught:
        check_names(config_of(["late", "when_hour", "lost"]), twice)
    assert caught.value.offences == (
        "encoded column amount_missing comes from 2 features; expected one; rename a feature",
        "label late is an encoded column of a feature too; expected another name; rename the feature",
        "label when_hour is an encoded column of a feature too; expected another name; rename the feature",
    )


def test_names_that_differ_are_accepted() -> None:
    check_names(config_of("late"), FEATURES)
