"""A column of weights from the raw table to the published dataset: bad ones are rejected, good ones are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig
from pipeline.dataset import Column, Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.features import FittedFeatures
from pipeline.inspect import describe
from pipeline.preparation.prepare import prepare_dataset
from tests.spark.datasets import config_of, read_all

ROWS = 200
BAD = {3: None, 4: np.nan, 5: -0.5, 6: np.inf, 7: 1e300}
REASONS = {"weight seats is negative": 1, "weight seats is not a finite number": 2, "weight seats is null": 2}

Make = Callable[..., PipelineConfig]


def trips() -> pd.DataFrame:
    """Rows with ids from 0; a weight is the id modulo 4, but for those that are no weights."""
    numbers = np.arange(ROWS)
    table = pd.DataFrame({"trip": numbers, "size": numbers * 0.5, "late": numbers % 2, "seats": numbers % 4.0})
    for row, value in BAD.items():
        table.at[row, "seats"] = value
    return table


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(**changes: Any) -> PipelineConfig:
        sections: dict[str, Any] = {
            "source": {"id": "trip"},
            "clean": {"max_rejected_fraction": 0.5},
            "features": {"size": {"type": "numeric"}},
            "label": {"column": "late", "weight": "seats"},
            "dataset__drift": {"action": "off"},
        }
        return config_of(tmp_path, **{**sections, **changes})

    return build


def prepared(spark: SparkSession, config: PipelineConfig, table: pd.DataFrame) -> Dataset:
    return prepare_dataset(spark, config, spark.createDataFrame(table))


def test_weights_are_published_beside_the_label_and_bad_ones_rejected(spark: SparkSession, make: Make) -> None:
    dataset = prepared(spark, make(), trips())
    accounting = dataset.manifest.accounting
    assert dict(accounting.reasons) == REASONS
    assert (accounting.rejected, accounting.balanced) == (len(BAD), True)
    assert dataset.schema.with_role("weight") == (Column("seats", "float32", "weight"),)
    rows = read_all(dataset)
    assert rows["seats"].dtype == np.float32
    assert rows["seats"].tolist() == (rows["trip"] % 4).tolist()
    assert dataset.manifest.semantic["label"]["weight"] == "seats"
    assert "weight      seats" in describe(dataset.url)
    assert "seats" not in FittedFeatures.from_json(dataset.manifest.statistics).inputs, "scored rows need none"


def test_texts_are_read_as_numbers_and_what_is_none_is_rejected(spark: SparkSession, make: Make) -> None:
    table = trips().fillna({"seats": 1.0}).assign(seats=lambda t: t["seats"].clip(0, 3).astype(str))
    table.loc[[8, 9], "seats"] = ["two", ""]
    dataset = prepared(spark, make(), table)
    assert dict(dataset.manifest.accounting.reasons) == {"weight seats is not a finite number": 2}
    assert set(read_all(dataset)["seats"]) == {0.0, 1.0, 2.0, 3.0}


def test_other_weights_are_another_version_and_a_dataset_without_them_knows_nothing_of_it(
    spark: SparkSession, make: Make
) -> None:
    table = trips().fillna({"seats": 1.0}).assign(seats=lambda t: t["seats"].clip(0, 3))
    first = prepared(spark, make(), table)
    second = prepared(spark, make(), table.assign(seats=table["seats"] + 1))
    without = prepared(spark, make(label={"column": "late"}), table)
    assert len({first.content_id, second.content_id, without.content_id}) == 3
    assert not without.schema.with_role("weight")
    assert "weight" not in without.manifest.semantic["label"]


def test_appended_rows_keep_their_weights(spark: SparkSession, make: Make) -> None:
    table = trips().drop(index=list(BAD))
    first = prepared(spark, make(), table)
    more = table.assign(trip=table["trip"] + 1000)
    config = make(dataset__statistics_from=first.content_id)
    both = prepared(spark, config, more)
    rows = read_all(both)
    assert len(rows) == 2 * len(table)
    assert rows["seats"].tolist() == (rows["trip"] % 4).tolist()
    with pytest.raises(ConfigError, match="label is not as in version"):
        prepared(spark, make(label={"column": "late"}, dataset__statistics_from=first.content_id), more)


def test_a_kept_weight_stands_beside_itself_under_another_name(spark: SparkSession, make: Make) -> None:
    rows = read_all(prepared(spark, make(dataset__keep=["seats"]), trips()))
    assert rows["raw_seats"].tolist() == rows["seats"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": {"column": "late", "weight": "chairs"}}, "label.weight is column chairs, which is missing"),
        (
            {"label": {"column": "late", "weight": "list"}},
            r"label.weight list has type array<bigint>; expected numbers",
        ),
        ({"label": {"column": "late", "weight": "none"}}, "is 0 in every row of train, validation, test"),
    ],
)
def test_a_column_that_cannot_weigh_is_refused(
    spark: SparkSession, make: Make, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(spark, make(**change), trips().assign(list=[[1]] * ROWS, none=0))


def test_a_weight_that_a_feature_publishes_too_is_refused(spark: SparkSession, make: Make) -> None:
    with pytest.raises(ConfigError, match=r"label.weight seats is a column that features.seats makes too"):
        prepared(spark, make(features={"seats": {"type": "numeric"}, "size": {"type": "numeric"}}), trips())
