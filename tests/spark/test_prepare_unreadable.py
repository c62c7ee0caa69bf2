"""Files that Spark cannot read as they are: one line that names input, file and column, and says what to do."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import DataError, InputMissingError, PipelineError, ServiceError
from pipeline.inference.stored_table import StoredTable
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.propose import propose
from pipeline.preparation.read import read_inputs

ROWS = 60
PLAIN = {"id": pa.array(range(ROWS)), "label": pa.array([row % 2 for row in range(ROWS)])}
MOMENT = datetime.datetime(2024, 1, 1)
ODD = {
    "clock": pa.array(range(ROWS), pa.time64("us")),
    "moments": pa.array([[MOMENT]] * ROWS, pa.list_(pa.timestamp("ns"))),
    "digits": pa.array([decimal.Decimal(1)] * ROWS, pa.decimal256(50, 2)),
    "clocks": pa.array([[1]] * ROWS, pa.list_(pa.time32("ms"))),
}

Make = Callable[..., PipelineConfig]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(path: Path, **input_: Any) -> PipelineConfig:
        return parse_config(
            {
                "source": {"inputs": {"sales": {"path": str(path), "format": "parquet", **input_}}, "id": "id"},
                "features": {"id_number": {"type": "numeric", "column": "id"}},
                "label": {"column": "label"},
                "split": {"validation": 0.2, "test": 0.2},
                "dataset": {"url": str(tmp_path / "out")},
                "training": {"run_url": str(tmp_path / "run")},
            }
        )

    return build


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "odd types.parquet"
    pq.write_table(pa.table({**PLAIN, **ODD}), path)
    return path


def offences_of(action: Callable[[], Any], error: type[PipelineError]) -> tuple[str, ...]:
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) is error
    assert all("\n" not in offence and "; expected" in offence for offence in caught.value.offences)
    return caught.value.offences


def test_every_column_of_a_type_that_spark_does_not_have_is_named_with_its_file(
    spark: SparkSession, make: Make, odd: Path
) -> None:
    config = make(odd)
    offences = offences_of(lambda: read_inputs(spark, config, list_inputs(config)), DataError)
    assert [offence.split(";")[0] for offence in offences] == [
        f"source.inputs.sales: column {column} of {odd} is a {type_}, which Spark does not read"
        for column, type_ in (
            ("clock", "time of day"),
            ("moments", "list, map or struct with a timestamp in nanoseconds"),
            ("digits", "decimal of 50 digits"),
            ("clocks", "time of day"),
        )
    ]


def test_the_advice_helps(spark: SparkSession, make: Make, odd: Path) -> None:
    dataset = prepare_dataset(spark, make(odd, schema="id BIGINT, label BIGINT"))
    assert dataset.manifest.accounting.published == ROWS


def test_a_proposal_and_a_table_to_score_meet_the_same_error(spark: SparkSession, make: Make, odd: Path) -> None:
    stored = StoredTable.find(str(odd))
    for action in (lambda: propose(spark, str(odd), "label"), lambda: stored.read(spark, make(odd))):
        offence, *_ = offences_of(action, DataError)
        assert f"column clock of {odd} is a time of day" in offence


@pytest.mark.parametrize("second", [pa.array(["x"] * ROWS), pa.array([1.5] * ROWS)])
def test_a_column_whose_type_differs_between_files_is_named_with_the_file(
    spark: SparkSession, make: Make, tmp_path: Path, second: pa.Array
) -> None:
    (tmp_path / "in").mkdir()
    first = pa.array([MOMENT] * ROWS, pa.timestamp("us"))
    for name, column in (("a", first), ("b", second)):
        pq.write_table(pa.table({**PLAIN, "price": column}), tmp_path / "in" / f"{name} part.parquet")
    (offence,) = offences_of(lambda: prepare_dataset(spark, make(tmp_path / "in")), DataError)
    assert f"column price of {tmp_path / 'in' / 'b part.parquet'} has Parquet type" in offence


@pytest.mark.parametrize("format_", ["parquet", "orc"])
@pytest.mark.parametrize("content", [b"", b"id,label\n1,0\n"], ids=["empty", "text"])
def test_a_file_of_another_format_is_named(
    spark: SparkSession, make: Make, tmp_path: Path, content: bytes, format_: str
) -> None:
    path = tmp_path / "not one.parquet"
    path.write_bytes(content)
    config = make(path, format=format_)
    (offence,) = offences_of(lambda: read_inputs(spark, config, list_inputs(config)), InputMissingError)
    skipped = not content and "its files tell no columns of format" in offence
    assert skipped or f"source.inputs.sales: {path} cannot be read" in offence


def test_a_format_whose_package_is_not_there_is_named(spark: SparkSession, make: Make, tmp_path: Path) -> None:
    config = make(tmp_path, format="delta")
    (offence,) = offences_of(lambda: read_inputs(spark, config, {}), ServiceError)
    assert "source.inputs.sales: format delta is not part of this Spark" in offence
    assert "spark.jars.packages" in offence
