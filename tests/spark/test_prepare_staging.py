"""What staging and fitting must not do to one task, to the driver or to a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig
from pipeline.errors import DataError
from pipeline.features.exact import Moments
from pipeline.features.sketches import Values, Want
from pipeline.preparation import stage as staging
from pipeline.preparation.clean import add_reasons
from pipeline.preparation.fit import _limits, _merged
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.session import preparation_settings
from tests.spark.datasets import config_of

ROWS = pd.DataFrame({"id": range(300), "x": [float(n) for n in range(300)], "late": [n % 2 for n in range(300)]})

Make = Callable[..., PipelineConfig]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    sections = {"source": {"id": ["id"]}, "features": {"x": {"type": "numeric"}}, "label": {"column": "late"}}
    return partial(config_of, tmp_path, **sections)


def test_a_label_of_too_many_classes_is_refused_before_its_classes_are_collected(
    spark: SparkSession, make: Make
) -> None:
    config = make(label={"column": "id", "type": "multiclass", "max_classes": 20})
    with pytest.raises(DataError, match=r"more than 20 classes in one file alone.*max_classes"):
        prepare_dataset(spark, config, spark.createDataFrame(ROWS))


def test_rows_of_a_file_that_come_in_parts_are_noticed(
    spark: SparkSession, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "placement", lambda buckets: [0] * buckets)
    with pytest.raises(DataError, match="the rows of a file came in parts"):
        prepare_dataset(spark, make(), spark.createDataFrame(ROWS))


def test_the_most_frequent_values_are_found_before_one_task_sees_them(spark: SparkSession) -> None:
    top, other, all_of_it = Values(2), Values(3, min_count=2), Moments()
    wants = [Want((name,), None, sketch) for name, sketch in (("a", top), ("b", other), ("c", all_of_it))]
    measured = [*(Want((name,), None, Values(None, 0)) for name in "ab"), wants[2]]
    rows = [(0, f"v{n % 7}", 0, n, 0, 0) for n in range(40)] + [(1, f"v{n}", 0, n, 0, 0) for n in range(5)]
    rows += [(2, "", n % 20, 1, n, n) for n in range(40)]
    with preparation_settings(spark):
        cells = spark.createDataFrame(rows, "want int, text string, key long, count long, low long, high long")
        merged = _merged(cells, [*_limits(wants, measured).values()])
        plan = merged._jdf.queryExecution().executedPlan().toString()
        found = merged.toPandas()
    assert "Partial" in plan[plan.index("WindowGroupLimit") :]
    counts = {want: sorted(rows["count"], reverse=True) for want, rows in found.groupby("want")}
    totals = pd.Series(range(40)).groupby(pd.Series([f"v{n % 7}" for n in range(40)])).sum()
    assert counts == {0: sorted(totals, reverse=True)[:2], 1: [4, 3, 2], 2: [2] * 20}


def test_few_large_rows_come_to_a_task_at_a_time(
    spark: SparkSession, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(features={"x": {"type": "vector", "shape": [8192]}})
    assert staging._batch_rows(spark, config) == 1024
    assert staging._batch_rows(spark, make()) == 10_000
    told: list[tuple[str, str]] = []
    spy = staging.temporary_settings
    monkeypatch.setattr(
        staging, "temporary_settings", lambda session, new: told.extend(new.items()) or spy(session, new)
    )
    rows = spark.createDataFrame(ROWS).selectExpr("id", "late", "array_repeat(x, 8192) AS x")
    assert prepare_dataset(spark, config, rows).manifest.accounting.published == len(ROWS)
    assert told == [("spark.sql.execution.arrow.maxRecordsPerBatch", "1024")]


def test_numbers_that_are_categories_too_are_refused_where_they_would_merge(spark: SparkSession, make: Make) -> None:
    features = {"n": {"type": "numeric"}, "c": {"type": "categorical", "column": "n"}}
    large = {0: 2**53 - 1, 1: 2**53, 2: 2**53 + 1, 3: "NaN"}
    rows = ROWS.assign(n=[str(large.get(n, n)) for n in range(300)])
    accounting = prepare_dataset(spark, make(features=features), spark.createDataFrame(rows)).manifest.accounting
    (reason,) = accounting.reasons
    assert reason.startswith("n is a number and a category, and beyond 2**53")
    assert accounting.rejected == 2


def test_rows_without_a_value_are_apart_where_values_must_be_unique(spark: SparkSession, make: Make) -> None:
    rows = ROWS.assign(key=[f"key {max(n, 1)}" if n < 100 else None for n in range(300)])
    config = make(clean={"rules": [{"column": "key", "unique": True}]})
    frame = spark.createDataFrame(rows)
    assert dict(prepare_dataset(spark, config, frame).manifest.accounting.reasons) == {"key is not unique": 2}
    plan = add_reasons(frame, config)._jdf.queryExecution().optimizedPlan().toString()
    assert "xxhash64(id" in plan
