"""What decides splits, files and sums of ids is the same whatever Spark and Java make of a number's text."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.preparation.hashing import hashable, id_checks

FRACTIONS = {
    2e23: 4794878837089075652,
    0.002: 4871732214958447277,
    0.1: 6366237016402070060,
    1.0: 7104995408986766543,
    -1e300: 2623518307016896844,
    5e-324: 5869528662934517821,
    float("inf"): 477380245455884234,
}
"""Numbers whose texts differ between versions of Java, and others, with their hashes as they were recorded."""


def hashes(spark: SparkSession, type_: str, *expressions: str) -> list[int]:
    frames = [spark.sql(f"SELECT CAST({one} AS {type_}) AS v") for one in expressions]
    return [frame.select(F.xxhash64(F.lit("salt"), *hashable(frame, ["v"]))).first()[0] for frame in frames]


def test_fractions_are_hashed_as_they_were_recorded(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(number,) for number in FRACTIONS], "v DOUBLE")
    found = frame.select("v", F.xxhash64(F.lit("salt"), *hashable(frame, ["v"])).alias("hash")).collect()
    assert {row["v"]: row["hash"] for row in found} == FRACTIONS


@pytest.mark.parametrize(
    ("type_", "one", "other"),
    [
        ("DOUBLE", "'0.0'", "'-0.0'"),
        ("FLOAT", "'0.0'", "'-0.0'"),
        ("DOUBLE", "'NaN'", "sqrt(-1D)"),
        ("ARRAY<DOUBLE>", "array(2e23D, null)", "array(2e22D * 10, null)"),
    ],
)
def test_values_that_are_one_have_one_hash(spark: SparkSession, type_: str, one: str, other: str) -> None:
    assert len(set(hashes(spark, type_, one, other))) == 1


def test_whole_numbers_of_any_size_and_fractions_of_any_agree(spark: SparkSession) -> None:
    assert len({hashes(spark, type_, "7")[0] for type_ in ("INT", "BIGINT", "SMALLINT", "STRING")}) == 1
    assert hashes(spark, "FLOAT", "0.5") == hashes(spark, "DOUBLE", "0.5")


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("ARRAY<DOUBLE>", ["array(1.5D)", "array(2.5D)", "array()", "null"]),
        ("MAP<STRING, DOUBLE>", ["map('a', 1.5D)", "map('a', 2.5D)", "map('b', 1.5D)", "map()", "null"]),
        (
            "ARRAY<STRUCT<m: MAP<INT, ARRAY<FLOAT>>>>",
            ["array(struct(map(1, array(0.5F))))", "array(struct(map(2, array(0.5F))))", "array(struct(null))"],
        ),
    ],
)
def test_nested_values_that_differ_are_told_apart(spark: SparkSession, type_: str, values: list[Any]) -> None:
    assert len(set(hashes(spark, type_, *values))) == len(values)


def test_the_two_sums_of_ids_are_independent(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, 0.5), (2, None)], "a INT, b DOUBLE")
    rows = frame.select(*id_checks(frame, ["a", "b"])).collect()
    assert len({value for row in rows for value in row}) == 4
