"""What rules say of values, whatever their column's type; what cannot be applied is found before a row is read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, DataError
from pipeline.preparation.clean import add_reasons, any_of, check_columns
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.session import preparation_settings
from tests.spark.datasets import config_of

Make = Callable[..., PipelineConfig]
FEATURES: dict[str, Any] = {"x": {"type": "numeric"}}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return functools.partial(config_of, tmp_path, source={"id": "id"}, features=FEATURES, label={"column": "label"})


def reasons(spark: SparkSession, config: PipelineConfig, type_: str, *texts: str | None) -> dict[str | None, Any]:
    """For each value of a column ``v``, given as a text that is cast in SQL, the reasons to reject its row."""
    frame = spark.createDataFrame([(text, number) for number, text in enumerate(texts)], "text STRING, id INT")
    with preparation_settings(spark):
        rows = frame.selectExpr("text", "id", "1.0D AS x", "0 AS label", f"CAST(text AS {type_}) AS v")
        check_columns(rows, config)
        return {row["text"]: row["_reasons"] for row in add_reasons(rows, config).collect()}


@pytest.mark.parametrize("reader", [None, {"type": "categorical"}, {"type": "numeric"}])
def test_a_text_that_is_no_number_does_not_meet_a_bound_whoever_reads_its_column(
    spark: SparkSession, make: Make, reader: dict[str, Any] | None
) -> None:
    features = {**FEATURES, **({"v": reader} if reader else {})}
    config = make(features=features, clean={"rules": [{"column": "v", "min": 0, "max": 10}, {"column": "v", "max": 9}]})
    assert reasons(spark, config, "STRING", "abc", "", "-5", "10", "11", "1e0", " 7 ", "nan", None) == {
        "abc": ["v is not a number"],
        "": ["v is not a number"],
        "-5": ["v is below 0"],
        "10": ["v is above 9"],
        "11": ["v is above 10", "v is above 9"],
        "1e0": None,
        " 7 ": None,
        "nan": None,
        None: None,
    }


@pytest.mark.parametrize(
    ("type_", "allowed", "fit", "unfit"),
    [
        ("STRING", [1, "a", 2.0, True], ["1", "a", "2", "true"], ["01", "A", "zzz", ""]),
        ("INT", [True, 3], ["1", "3"], ["0", "2"]),
        ("BIGINT", [2**53 + 1], [str(2**53 + 1)], [str(2**53), str(2**53 + 2)]),
        ("DOUBLE", ["0.5", 2], ["0.5", "2"], ["0.4"]),
        ("DECIMAL(5, 2)", [0.1], ["0.1"], ["0.11"]),
        ("BOOLEAN", ["yes", 1], ["true"], ["false"]),
        ("DATE", ["2024-01-05"], ["2024-01-05"], ["2024-01-06"]),
        ("TIMESTAMP", ["2024-01-05 06:00"], ["2024-01-05 06:00:00"], ["2024-01-05 06:00:01"]),
    ],
)
def test_values_are_allowed_by_what_they_are_and_nothing_passes_since_it_cannot_be_compared(
    spark: SparkSession, make: Make, type_: str, allowed: list[Any], fit: list[str], unfit: list[str]
) -> None:
    config = make(clean={"rules": [{"column": "v", "allowed": allowed}]})
    found = reasons(spark, config, type_, *fit, *unfit, None)
    assert found == {**dict.fromkeys([*fit, None]), **{one: ["v is not an allowed value"] for one in unfit}}


def test_thousands_of_conditions_are_no_deeper_than_one(spark: SparkSession) -> None:
    conditions = [F.col("id") > 1] * 3000
    rows = spark.range(3).select("id", any_of([*conditions, F.col("id").isNull(), F.lit(None) > 1]).alias("any"))
    assert {row["id"]: row["any"] for row in rows.collect()} == {0: False, 1: False, 2: True}


def test_bounds_that_differ_in_their_last_digit_are_told_apart(spark: SparkSession, make: Make) -> None:
    config = make(clean={"rules": [{"column": "v", "min": 1000000}, {"column": "v", "min": 1000000.4}]})
    assert reasons(spark, config, "DOUBLE", "5", "1000000.2") == {
        "5": ["v is below 1000000", "v is below 1000000.4"],
        "1000000.2": ["v is below 1000000.4"],
    }


@pytest.mark.parametrize(
    ("type_", "rule", "message"),
    [
        ("DATE", {"min": 1}, "clean.rules.0 has min for column v of type date; expected a column of numbers"),
        ("BINARY", {"allowed": ["a"]}, "clean.rules.0 has allowed for column v of type binary; expected a column of"),
        ("INT", {"allowed": ["a", 1]}, "clean.rules.0 has 'a' for v, which is read as numbers; expected numbers"),
        ("DATE", {"allowed": ["Jan 5"]}, "clean.rules.0 has 'Jan 5' for v, which is read as timestamps; expected time"),
        ("DOUBLE", {"max_length": 3}, "clean.rules.0 has max_length for column v of type double, whose texts differ"),
        ("INT", {"condition": "v >"}, "clean.rules.0.condition is not valid: [PARSE_SYNTAX_ERROR]"),
        ("INT", {"condition": "w > 3"}, "clean.rules.0.condition is not valid: [UNRESOLVED_COLUMN"),
        ("INT", {"condition": "v + 1"}, "clean.rules.0.condition is not valid: "),
        ("INT", {"condition": "count(v) > 1"}, "clean.rules.0.condition is not valid: "),
    ],
)
def test_what_a_rule_cannot_do_names_the_rule(
    spark: SparkSession, make: Make, type_: str, rule: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        reasons(spark, make(clean={"rules": [{"column": "v", **rule}]}), type_, "1")
    (offence,) = caught.value.offences
    assert offence.startswith(message)


def test_patterns_that_java_does_not_know_are_the_configurations_fault_all_of_them(
    spark: SparkSession, make: Make
) -> None:
    patterns = ["[ab]+", "(?P<name>x)", "(?x)a # to the end of the line", "a(?'b'c)"]
    with pytest.raises(ConfigError) as caught:
        reasons(spark, make(clean={"rules": [{"column": "v", "pattern": one} for one in patterns]}), "STRING", "a")
    assert [offence.split(" is no regular expression of Java: ")[0] for offence in caught.value.offences] == [
        f"clean.rules.{number}.pattern {patterns[number]}" for number in (1, 2, 3)
    ]


def test_a_limit_is_of_a_rule_and_counts_a_row_once_whichever_conditions_it_breaks(
    spark: SparkSession, make: Make
) -> None:
    rows = 200
    table = pd.DataFrame({"id": np.arange(rows), "x": np.arange(rows) / 10, "label": np.arange(rows) % 2})
    table["code"] = ["a" if row >= 30 else "long and odd" for row in range(rows)]
    rules = [
        {"column": "x", "min": 1, "max": 18.9, "max_fraction": 0.10},
        {"column": "x", "min": 0.5, "max": 19.4, "max_fraction": 0.05},
        {"column": "code", "pattern": "[a-z]", "max_length": 3, "max_fraction": 0.15},
        {"column": "code", "pattern": "[a-z]", "max_length": 4, "max_fraction": 0.14},
    ]
    config = make(clean={"rules": rules, "max_rejected_fraction": 1})
    with pytest.raises(DataError) as caught:
        prepare_dataset(spark, config, spark.createDataFrame(table))
    assert [offence.split("; ")[0] for offence in caught.value.offences] == [
        "clean.rules.3 (code does not match [a-z], code is longer than 4) rejects 15.00% of the rows"
    ]
    tight = [{**rules[0], "max_fraction": 0.099}]
    with pytest.raises(DataError, match=r"rules\.0 \(x is below 1, x is above 18\.9\) rejects 10\.00% of the rows"):
        prepare_dataset(spark, make(clean={"rules": tight, "max_rejected_fraction": 1}), spark.createDataFrame(table))
