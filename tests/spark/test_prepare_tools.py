"""What stands beside preparation: proposals, previews, garbage collection, progress, scans."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig, load_config, parse_config
from pipeline.errors import ConfigError, DataError, InputMissingError
from pipeline.preparation import prepare as preparing
from pipeline.preparation import preview as previewing
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.preview import preview
from pipeline.preparation.progress import StepProgress
from pipeline.preparation.propose import propose
from pipeline.preparation.session import preparation_settings, temporary_settings
from tests.spark.datasets import config_of

ROWS = 500


@pytest.fixture
def table(tmp_path: Path) -> Path:
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "order id": np.arange(ROWS),
            "day": pd.date_range("2024-01-01", periods=ROWS, freq="6h").strftime("%Y-%m-%dT%H:%M:%S"),
            "price": random.gamma(2, 10, ROWS).round(2),
            "shop": random.choice(["a", "b", "c"], ROWS),
            "constant": 1,
            "note": [f"text {number}" for number in range(ROWS)],
            "churn": random.integers(0, 2, ROWS),
        }
    )
    frame.loc[frame.index % 7 == 0, "price"] = None
    frame.to_csv(tmp_path / "orders.csv", index=False)
    return tmp_path / "orders.csv"


def test_a_proposed_configuration_runs_unedited(spark: SparkSession, table: Path, tmp_path: Path) -> None:
    target = tmp_path / "conf" / "pipeline.yaml"
    target.parent.mkdir()
    proposal = propose(spark, os.path.relpath(table))
    target.write_text(proposal.text(str(target.parent)))
    values = yaml.safe_load(target.read_text())
    assert values["label"] == {"column": "churn", "type": "binary"}
    assert values["source"]["id"] == ["order id"]
    assert values["split"]["by"] == "time"
    assert set(values["features"]) == {"day", "price", "shop"}
    assert values["features"]["price"]["indicator"] is True
    assert proposal.left_out == {"constant": "one value only", "note": "nearly all values differ"}
    config = load_config(str(target))
    dataset = prepare_dataset(spark, config)
    assert dataset.manifest.accounting.published == ROWS
    assert dataset.manifest.rows("test") == pytest.approx(ROWS / 10, abs=5)
    with pytest.raises(DataError, match="label wings"):
        propose(spark, str(table), label="wings")


def test_a_proposal_rejects_no_class_takes_no_id_for_a_feature_and_allows_what_is_not_labelled(
    spark: SparkSession, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "serial": np.arange(ROWS) + 7,
            "uuid": [f"{number:032x}" for number in range(ROWS)],
            "customer_id": random.integers(0, 90, ROWS),
            "seen": pd.Series(pd.date_range("2024-01-01", periods=ROWS, freq="h").astype("datetime64[us]")),
            "born": (pd.date_range("1990-01-01", periods=ROWS) + pd.Timedelta("0h")).date,
            "on": random.normal(size=ROWS),
            "tags": [["a"]] * ROWS,
            "outcome": pd.array(random.integers(1, 3, ROWS), dtype="Int32"),
        }
    )
    frame.loc[frame.index % 10 == 0, "seen"] = None
    frame.loc[frame.index % 9 == 0, "outcome"] = None
    frame["born"] = frame["born"].where(frame.index % 8 > 0, None)
    (tmp_path / "export").mkdir()
    frame.to_parquet(tmp_path / "export" / "000000_0", index=False)
    proposal = propose(spark, str(tmp_path / "export"))
    assert (proposal.label, proposal.label_type) == ("outcome", "multiclass")
    assert proposal.ids == ("uuid",)
    assert proposal.split.startswith("{by: hash"), "rows without a time would be rejected"
    assert set(proposal.features) == {"seen", "born", "on"}
    assert proposal.features["born"]["parts"] == ["month", "weekday"]
    assert {name for name, why in proposal.left_out.items() if why == "looks like an id"} == {"serial", "customer_id"}
    (tmp_path / "pipeline.yaml").write_text(proposal.text(str(tmp_path)))
    dataset = prepare_dataset(spark, load_config(str(tmp_path / "pipeline.yaml")))
    assert dataset.manifest.accounting.published == int(frame["outcome"].notna().sum())
    assert set(dataset.manifest.class_counts["train"]) == {"1", "2"}


@pytest.fixture
def config(table: Path, tmp_path: Path) -> PipelineConfig:
    return config_of(
        tmp_path,
        source={"inputs": {"orders": {"path": str(table)}}, "id": "order id"},
        clean={"rules": [{"column": "price", "max": 60}]},
        features={"price": {"type": "numeric"}, "shop": {"type": "categorical"}},
        label={"column": "churn"},
        dataset__drift={"action": "off"},
    )


def test_a_preview_counts_and_profiles_the_first_rows_and_writes_nothing(
    spark: SparkSession, config: PipelineConfig, table: Path, tmp_path: Path
) -> None:
    schema = "`order id` INT, day TIMESTAMP, price DOUBLE, shop STRING, constant INT, note STRING, churn INT"
    with table.open("a") as stream:
        stream.write("broken line\n" * 3)
    config = config_of(
        tmp_path,
        source={"inputs": {"orders": {"path": str(table), "schema": schema}}, "id": "order id", "sensitive": ["note"]},
        clean={"rules": [{"column": "price", "max": 60}]},
        features={"price": {"type": "numeric"}, "shop": {"type": "categorical"}, "note": {"type": "categorical"}},
        label={"column": "churn"},
        dataset__keep=["day"],
    )
    seen = preview(spark, config)
    assert seen["inputs"]["orders"] == {
        "files": 1,
        "bytes": table.stat().st_size,
        "first_rows": ROWS + 3,
        "not_parsed": 3,
    }
    sample = seen["sample"]
    assert (sample["of"], sample["rows"]) == ("the first rows", ROWS)
    assert sample["missing"]["price"] == len(range(0, ROWS, 7))
    assert sum(sample["splits"].values()) + sample["rejected"] == ROWS
    profile, fit = seen["profile"], ROWS - sample["rejected"]
    assert {name: one["kind"] for name, one in profile.items()} == {
        "day": "timestamp",
        "price": "number",
        "shop": "string",
        "note": "string",
        "churn": "number",
    }
    assert all(one["rows"] == fit for one in profile.values())
    assert profile["day"]["min"] == "2024-01-01T00:00:00"
    assert profile["price"]["max"] <= 60
    assert profile["price"]["missing"] == sample["missing"]["price"]
    assert sum(count for _, count in profile["shop"]["top"]) == fit
    assert profile["note"] == {"kind": "string", "rows": fit, "missing": 0}
    assert profile["churn"]["distinct"] == 2
    assert not Path(config.dataset.url).exists()
    json.dumps(seen)


def test_a_preview_refuses_what_a_preparation_would(spark: SparkSession, config: PipelineConfig, table: Path) -> None:
    dataset = config.dataset.model_copy(update={"statistics_from": "0" * 64})
    with pytest.raises(InputMissingError):
        preview(spark, config.model_copy(update={"dataset": dataset}))
    schema = "`order id` INT, day TIMESTAMP, price INT, shop STRING, constant INT, note INT, churn INT"
    inputs = {"orders": {"path": str(table), "schema": schema}}
    source = parse_config({**config.model_dump(by_alias=True), "source": {"inputs": inputs, "id": "order id"}}).source
    with pytest.raises(DataError, match="none of the first 500 rows of input orders can be parsed"):
        preview(spark, config.model_copy(update={"source": source}))
    where = config.source.model_copy(update={"where": "price < 0"})
    with pytest.raises(DataError, match="no rows"):
        preview(spark, config.model_copy(update={"source": where}))


def test_progress_tells_every_step_and_the_tasks_of_spark(
    spark: SparkSession, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(preparing, "StepProgress", partial(StepProgress, seconds=0.01))
    prepare_dataset(spark, config, progress=lambda *one: told.append(one))
    steps = [step for step, _, total in told if total == 0]
    assert len(steps) == 5
    tasks = [(step, done, total) for step, done, total in told if total]
    assert all(done <= total for _, done, total in tasks)
    assert {step for step, _, _ in tasks} >= {"cleaning and splitting", "encoding and writing"}


def _executions(spark: SparkSession) -> dict[int, str]:
    """Plans by number of those SQL executions, of the thousand that Spark keeps, that it has heard of by now."""
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    kept = spark._jsparkSession.sharedState().statusStore().executionsList()
    executions = [kept.apply(place) for place in range(kept.size())]
    return {int(one.executionId()): one.physicalPlanDescription() for one in executions}


def test_the_inputs_are_scanned_at_most_three_times(
    spark: SparkSession, config: PipelineConfig, table: Path, tmp_path: Path
) -> None:
    schema = "`order id` INT, day TIMESTAMP, price DOUBLE, shop STRING, constant INT, note STRING, churn INT"
    pd.DataFrame({"shop": ["a", "b", "c"], "size": [1, 2, 3]}).to_parquet(tmp_path / "shops.parquet")
    inputs = {
        "orders": {"path": str(table), "schema": schema},
        "shops": {"path": str(tmp_path / "shops.parquet"), "format": "parquet"},
    }
    source = {
        "inputs": inputs,
        "primary": "orders",
        "id": "order id",
        "query": "SELECT orders.*, size FROM orders LEFT JOIN shops USING (shop)",
        "where": "constant = 1",
        "sample": {"fraction": 0.999},
    }
    source = parse_config({**config.model_dump(by_alias=True), "source": source}).source
    table.write_text(table.read_text() + "broken line\n")
    before = max(_executions(spark), default=-1)
    dataset = prepare_dataset(spark, config.model_copy(update={"source": source}))
    assert dataset.manifest.accounting.reasons["row cannot be parsed"] == 1
    plans = [plan for number, plan in _executions(spark).items() if number > before]
    scans = [plan for plan in plans if "Scan csv" in plan]
    assert len(scans) == 3, "counting, staging, and the lines that cannot be parsed"
    assert sum("Scan text" in plan for plan in plans) == 1, "looking for texts that a line would cut"
    assert sum("Scan parquet" in plan for plan in plans) == 1, "staging alone"


REFUSED: dict[str, dict[str, Any]] = {
    "a missing column": {"features": {"prise": {"type": "numeric"}}},
    "a column that cannot be kept": {"dataset__keep": ["p"], "source__query": "SELECT *, array(1) AS p FROM orders"},
    "an id that cannot be kept": {"source__id": "p", "source__query": "SELECT *, array(1) AS p FROM orders"},
    "a foreign table": {"source__query": "SELECT orders.* FROM orders, parquet.`{0}`"},
    "chance": {"source__query": "SELECT *, rand() AS x FROM orders"},
    "a broken rule": {"clean": {"rules": [{"column": "price", "condition": "price >"}]}},
    "an unknown sensitive column": {"source__sensitive": ["card"]},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_prepared_is_refused_alike_by_both_before_anything_is_read(
    spark: SparkSession, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    for module in (preparing, previewing):
        monkeypatch.setattr(module, "take_census", lambda *_, **__: pytest.fail("the inputs were read"))
    pd.read_csv(table).to_parquet(tmp_path / "dim.parquet")
    schema = "`order id` INT, day TIMESTAMP, price DOUBLE, shop STRING, constant INT, note STRING, churn INT"
    sections = {
        "source": {"inputs": {"orders": {"path": str(table), "schema": schema}}, "id": "order id"},
        "features": {"price": {"type": "numeric"}},
        "label": {"column": "churn"},
        **REFUSED[reason],
    }
    if "source__query" in sections:
        sections["source__query"] = sections["source__query"].format(tmp_path / "dim.parquet")
    said = set()
    for look in (preview, prepare_dataset):
        with pytest.raises((ConfigError, DataError)) as caught:
            look(spark, config_of(tmp_path, **sections))
        said.add(f"{type(caught.value).__name__}: {caught.value}")
    assert len(said) == 1, said


def test_files_are_read_by_some_tasks_for_each_core_unless_the_session_says_how_many(
    spark: SparkSession, tmp_path: Path
) -> None:
    spark.range(4000).repartition(16).write.parquet(str(tmp_path / "in"))

    def tasks() -> int:
        with preparation_settings(spark):
            return spark.read.parquet(str(tmp_path / "in")).rdd.getNumPartitions()

    with temporary_settings(spark, {"spark.sql.files.openCostInBytes": "1"}):
        assert tasks() >= 4 * spark.sparkContext.defaultParallelism
        with temporary_settings(spark, {"spark.sql.files.minPartitionNum": "1"}):
            assert tasks() == 1
