"""Several labels at once, or none, from the raw table to the published dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.dataset import SPLITS, Dataset
from pipeline.errors import DataError
from pipeline.export import export_dataset
from pipeline.inspect import describe
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.preview import preview
from tests.spark.datasets import config_of, read_all, read_split

ROWS = 400
FLAGS = ["late", "lost", "broken"]
SIZES = ["height", "weight"]
THREE_FLAGS = {"column": FLAGS}
TWO_SIZES = {"column": SIZES, "type": "regression", "scale": "standard"}

BAD_FLAGS: dict[str, dict[int, Any]] = {
    "late": {3: None, 4: 0.5, 5: 2.0, 6: np.inf},
    "lost": {4: None, 11: None, 12: None},
    "broken": {20: "perhaps", 21: ""},
}
BAD_SIZES: dict[str, dict[int, Any]] = {
    "height": {1: None, 2: np.inf, 3: -1.0},
    "weight": {3: 5000.0, 4: np.nan},
}


def parcels() -> pd.DataFrame:
    """Rows with ids from 0; some labels of the first 30 are not fit."""
    random, numbers = np.random.default_rng(5), np.arange(ROWS)
    size = random.uniform(10, 100, ROWS)
    table = pd.DataFrame(
        {
            "parcel": numbers,
            "size": size,
            "shop": random.choice(["a", "b", "c"], ROWS),
            "late": (size > 50).astype(np.float64),
            "lost": numbers % 7 == 0,
            "broken": np.where(numbers % 5 < 2, "true", "false"),
            "height": 170 + size / 10,
            "weight": 1000 * size / 100,
        }
    ).astype({"lost": object, "broken": object})
    for column, places in {**BAD_FLAGS, **BAD_SIZES}.items():
        for row, value in places.items():
            table.at[row, column] = value
    return table


Make = Callable[..., PipelineConfig]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(label: Any = None, **changes: Any) -> PipelineConfig:
        sections: dict[str, Any] = {
            "source": {"id": "parcel"},
            "clean": {"max_rejected_fraction": 0.5},
            "features": {"size": {"type": "numeric"}, "shop": {"type": "categorical"}},
            "label": label,
            "dataset__drift": {"action": "off"},
        }
        return config_of(tmp_path, **{**sections, **changes})

    return build


def prepared(spark: SparkSession, config: PipelineConfig, table: pd.DataFrame, partitions: int = 2) -> Dataset:
    return prepare_dataset(spark, config, spark.createDataFrame(table).repartition(partitions))


def quarantined(dataset: Dataset) -> pd.DataFrame:
    (rejected,) = Path(dataset.url, "quarantine").glob("*/rejected")
    return pd.read_parquet(rejected).set_index("parcel")


def test_each_of_three_binary_labels_is_checked_published_and_counted(spark: SparkSession, make: Make) -> None:
    table = parcels()
    dataset = prepared(spark, make(THREE_FLAGS, dataset__keep=["lost", "weight"]), table)
    assert (dataset.schema.labels, dataset.schema.label_type) == (("late", "lost", "broken"), "binary")
    assert [column.dtype for column in dataset.schema.with_role("label")] == ["float32"] * 3
    assert [column.name for column in dataset.schema.with_role("kept")] == ["weight"]

    accounting = dataset.manifest.accounting
    assert accounting.reasons == {
        "label broken is not 0 or 1": 2,
        "label late is not 0 or 1": 3,
        "label late is null": 1,
        "label lost is null": 3,
    }
    unfit = set().union(*BAD_FLAGS.values())
    assert (accounting.rejected, accounting.published) == (len(unfit), ROWS - len(unfit))
    rejected = quarantined(dataset)
    assert set(rejected.index) == unfit
    assert sorted(rejected.loc[4, "_reasons"]) == ["label late is not 0 or 1", "label lost is null"]
    assert set(rejected.columns) == {*table.columns, "_reasons"} - {"parcel"}

    rows = read_all(dataset).set_index("parcel")
    fit = table.set_index("parcel").loc[rows.index]
    assert (rows["late"] == fit["late"]).all()
    assert (rows["lost"] == fit["lost"].astype(float)).all()
    assert (rows["broken"] == (fit["broken"] == "true")).all()
    for split in SPLITS:
        here = rows[rows["split"] == split]
        expected = {f"{name}={value}": int((here[name] == value).sum()) for name in FLAGS for value in (0, 1)}
        assert dataset.manifest.class_counts[split] == expected

    state = dataset.manifest.statistics["label"]
    train = rows[rows["split"] == "train"]
    assert (state["columns"], state["classes"]) == (FLAGS, [["0", "1"]] * 3)
    shares = [[(train[name] == value).mean() for value in (0, 1)] for name in FLAGS]
    assert state["class_weights"] == [[pytest.approx(1 / share / 2) for share in pair] for pair in shares]
    text = describe(dataset.url, deep=True)
    assert "label       late, lost, broken (binary)" in text
    assert f"lost=1: {int(train['lost'].sum())}" in text


def test_two_regression_labels_have_a_unit_each_and_the_same_bounds(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    table = parcels()
    dataset = prepared(spark, make({**TWO_SIZES, "min": 0, "max": 2000}), table)
    assert dataset.manifest.accounting.reasons == {
        "label height is below 0": 1,
        "label height is not a finite number": 1,
        "label height is null": 1,
        "label weight is above 2000": 1,
        "label weight is null": 1,
    }
    assert dataset.manifest.class_counts == {split: {} for split in SPLITS}
    rows, state = read_all(dataset).set_index("parcel"), dataset.manifest.statistics["label"]
    train = rows[rows["split"] == "train"]
    raw = table.set_index("parcel").loc[train.index, SIZES].astype(float)
    assert state["offset"] == pytest.approx(raw.mean().tolist(), rel=1e-12)
    assert state["scale"] == pytest.approx(raw.std(ddof=0).tolist(), rel=1e-9)
    assert np.allclose(train[SIZES] * state["scale"] + state["offset"], raw, rtol=1e-6)

    version = Path(dataset.url, "versions", dataset.content_id)
    profile = storage.read_json(str(version / "profile.json"), "profile", 1)["columns"]
    assert [profile[name]["mean"] for name in SIZES] == pytest.approx(raw.mean().tolist())
    test = pd.read_parquet(version / "raw" / "test")
    assert set(test.columns) == set(table.columns), "the test rows as they came"
    assert np.allclose(test["weight"], table.set_index("parcel").loc[test["parcel"], "weight"])
    assert export_dataset(dataset, str(tmp_path / "wide"), ["test"]) == {"test": len(test)}
    assert {*SIZES, "size", "shop"} <= set(pd.read_parquet(tmp_path / "wide" / "test").columns)


@pytest.mark.parametrize("label", [THREE_FLAGS, TWO_SIZES, None])
def test_other_partitions_give_the_same_content_id(spark: SparkSession, make: Make, label: Any, tmp_path: Path) -> None:
    table = parcels()
    one = prepared(spark, make(label), table)
    shuffled = table.sample(frac=1, random_state=1)
    other = prepared(spark, make(label, dataset__url=str(tmp_path / "other")), shuffled, partitions=7)
    assert other.content_id == one.content_id


def test_without_a_label_every_row_is_published_and_no_column_is_a_label(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    dataset = prepared(spark, make(dataset__keep=FLAGS[:1]), parcels())
    assert (dataset.schema.labels, dataset.schema.label_type, dataset.schema.classes) == ((), None, ())
    assert dataset.manifest.accounting.as_rows() == {"in": ROWS, "published": ROWS, "duplicates": 0, "rejected": 0}
    assert dataset.manifest.statistics["label"] == {}
    assert dataset.manifest.class_counts == {split: {} for split in SPLITS}
    batch = next(iter(Dataset.open(dataset.url).loader("train", global_batch_size=32)))
    assert (batch.rows, batch.label.shape, set(batch.inputs)) == (32, (32, 0), {"numeric", "categorical"})
    assert "label       none" in describe(dataset.url, deep=True)
    export_dataset(dataset, str(tmp_path / "wide"))


def test_a_class_that_a_split_lacks_is_named_with_its_label(spark: SparkSession, make: Make) -> None:
    table = parcels().drop(index=sorted(set().union(*BAD_FLAGS.values())))
    table["lost"] = table["parcel"] == 100
    with pytest.raises(DataError, match=r"has no row of class lost=1.*expected every class in every split"):
        prepared(spark, make(THREE_FLAGS), table)


def test_a_stratified_split_of_several_labels_hashes_within_each_combination(spark: SparkSession, make: Make) -> None:
    table = parcels().drop(index=sorted(set().union(*BAD_FLAGS.values())))
    split = {"by": "stratified", "validation": 0.2, "test": 0.2}
    before = read_all(prepared(spark, make(THREE_FLAGS, split=split), table)).set_index("parcel")
    changed = table.assign(lost=~table["lost"].astype(bool))
    after = read_all(prepared(spark, make(THREE_FLAGS, split=split), changed)).set_index("parcel")
    moved = (before["split"] != after["split"].loc[before.index]).mean()
    assert 0.4 < moved < 0.7, "every label is part of what the hash sees"
    fractions = before.groupby(FLAGS)["split"].value_counts(normalize=True).unstack()
    large = before.groupby(FLAGS).size() > 60
    assert fractions[large]["train"].between(0.45, 0.75).all()


@pytest.mark.parametrize("label", [THREE_FLAGS, TWO_SIZES, None])
def test_new_rows_are_added_with_the_labels_units_and_columns_of_the_old_version(
    spark: SparkSession, make: Make, label: Any
) -> None:
    table = parcels()
    old = prepared(spark, make(label), table[:300])
    new = prepared(spark, make(label, dataset__statistics_from=old.content_id), table)
    assert new.manifest.statistics == old.manifest.statistics
    rows = read_all(new).set_index("parcel")
    assert new.manifest.accounting.published == len(rows) == len(set(rows.index))
    if label is TWO_SIZES:
        state, added = old.manifest.statistics["label"], rows[rows.index >= 300]
        expected = table.set_index("parcel").loc[added.index, SIZES].astype(float)
        assert np.allclose(added[SIZES] * state["scale"] + state["offset"], expected, rtol=1e-6)
    if label is THREE_FLAGS:
        counts = Counter(new.manifest.class_counts["test"])
        assert counts["late=0"] + counts["late=1"] == len(read_split(new, "test"))


def test_drift_of_a_label_and_a_preview_name_the_label(spark: SparkSession, make: Make) -> None:
    table = parcels()
    config = make(THREE_FLAGS, dataset__drift={"action": "fail"})
    shown = preview(spark, config, spark.createDataFrame(table))
    assert shown["sample"]["reasons"]["label lost is null"] == 3
    prepared(spark, config, table)
    moved = table.assign(broken="true")
    moved.loc[moved["parcel"] % 11 == 0, "broken"] = "false"
    with pytest.raises(DataError, match="column broken: population stability index"):
        prepared(spark, config, moved)


def test_missing_label_columns_are_named_together(spark: SparkSession, make: Make) -> None:
    with pytest.raises(DataError) as caught:
        prepared(spark, make({"column": ["late", "lots", "brocken"]}), parcels())
    first, second = caught.value.offences
    assert first.startswith("label.column is column lots, which is missing")
    assert second.endswith("did you mean broken?")
