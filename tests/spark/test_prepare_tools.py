"""What stands beside preparation: proposals, previews, garbage collection, progress, scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig, load_config, parse_config
from pipeline.dataset import Dataset, commit_numbers
from pipeline.dataset.holds import hold
from pipeline.errors import DataError, InputMissingError, OutputError
from pipeline.preparation.gc import collect_garbage
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.preview import preview
from pipeline.preparation.propose import write_proposal
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
    target = tmp_path / "pipeline.yaml"
    write_proposal(spark, str(table), str(target))
    values = yaml.safe_load(target.read_text())
    assert values["label"] == {"column": "churn", "type": "binary"}
    assert values["source"]["id"] == ["order id"]
    assert values["split"]["by"] == "time"
    assert set(values["features"]) == {"day", "price", "shop"}
    assert values["features"]["price"]["indicator"] is True
    config = load_config(str(target))
    dataset = prepare_dataset(spark, config)
    assert dataset.manifest.accounting.published == ROWS
    assert dataset.manifest.rows("test") == pytest.approx(ROWS / 10, abs=5)
    with pytest.raises(OutputError):
        write_proposal(spark, str(table), str(target))
    with pytest.raises(DataError, match="label wings"):
        write_proposal(spark, str(table), str(tmp_path / "other.yaml"), label="wings")


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


def salted(config: PipelineConfig, salt: str) -> PipelineConfig:
    return config.model_copy(update={"split": config.split.model_copy(update={"salt": salt})})


def test_a_preview_counts_a_sample_and_writes_nothing(spark: SparkSession, config: PipelineConfig) -> None:
    seen = preview(spark, config)
    assert seen["inputs"]["orders"]["files"] == 1
    assert seen["sample"]["rows"] == ROWS
    assert seen["sample"]["missing"]["price"] == len(range(0, ROWS, 7))
    assert sum(seen["sample"]["splits"].values()) + seen["sample"]["rejected"] == ROWS
    assert not Path(config.dataset.url).exists()


def test_garbage_collection_keeps_the_newest_and_what_is_held(spark: SparkSession, config: PipelineConfig) -> None:
    first, second, third = (prepare_dataset(spark, salted(config, salt)) for salt in "abc")
    with hold(first):
        assert collect_garbage(third.url, keep=1) == [second.content_id]
    assert Dataset.open(third.url, first.content_id).content_id == first.content_id
    assert collect_garbage(third.url, keep=1) == [first.content_id]
    with pytest.raises(InputMissingError):
        Dataset.open(third.url, first.content_id)
    assert len(commit_numbers(third.url)) == 1
    assert Dataset.open(third.url).content_id == third.content_id


def test_progress_tells_every_step_and_the_tasks_of_spark(spark: SparkSession, config: PipelineConfig) -> None:
    told: list[tuple[Any, ...]] = []
    prepare_dataset(spark, config, progress=lambda *one: told.append(one))
    steps = [step for step, _, total in told if total == 0]
    assert len(steps) == 5
    assert all(done <= total for _, done, total in told)


def _executions(spark: SparkSession) -> dict[int, str]:
    """Plans by number of those SQL executions, of the thousand that Spark keeps, that it has heard of by now."""
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    kept = spark._jsparkSession.sharedState().statusStore().executionsList()
    executions = [kept.apply(place) for place in range(kept.size())]
    return {int(one.executionId()): one.physicalPlanDescription() for one in executions}


def test_the_inputs_are_scanned_at_most_three_times(spark: SparkSession, config: PipelineConfig, table: Path) -> None:
    schema = "`order id` INT, day TIMESTAMP, price DOUBLE, shop STRING, constant INT, note STRING, churn INT"
    inputs = {"orders": {"path": str(table), "schema": schema}}
    source = parse_config({**config.model_dump(by_alias=True), "source": {"inputs": inputs, "id": "order id"}}).source
    table.write_text(table.read_text() + "broken line\n")
    before = max(_executions(spark), default=-1)
    dataset = prepare_dataset(spark, config.model_copy(update={"source": source}))
    assert dataset.manifest.accounting.reasons["row cannot be parsed"] == 1
    scans = [plan for number, plan in _executions(spark).items() if number > before and "Scan csv" in plan]
    assert len(scans) == 3, "counting, staging, and the lines that cannot be parsed"
