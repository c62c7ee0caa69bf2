"""Files that differ: a column that would be null in some of them is refused by name, however many files there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig
from pipeline.errors import DataError, InputMissingError
from pipeline.inference.stored_table import StoredTable
from pipeline.preparation import footers
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.read import read_inputs
from tests.spark.datasets import config_of

WRITE: dict[str, Callable[..., Any]] = {"orc": orc.write_table, "parquet": pq.write_table}
NUMBERS = {"id": pa.array([1, 2]), "x": pa.array([0.5, 1.5])}


def write(folder: Path, format_: str, **files: dict[str, pa.Array]) -> Path:
    folder.mkdir(parents=True)
    for name, columns in files.items():
        WRITE[format_](pa.table(columns), str(folder / f"{name}.{format_}"))
    return folder


def sales(folder: Path, format_: str, **input_: Any) -> PipelineConfig:
    inputs = {"sales": {"path": str(folder), "format": format_, **input_}}
    return config_of(folder.parent, source={"inputs": inputs}, features={"x": {"type": "numeric"}})


def read(spark: SparkSession, config: PipelineConfig) -> list[tuple[Any, ...]]:
    frame = read_inputs(spark, config, list_inputs(config))["sales"]
    return sorted(map(tuple, frame.select("id", "x").collect()))


def refusal(spark: SparkSession, config: PipelineConfig) -> str:
    with pytest.raises(DataError) as caught:
        read(spark, config)
    (offence,) = caught.value.offences
    return offence


@pytest.mark.parametrize("format_", WRITE)
@pytest.mark.parametrize("schema", [None, "id BIGINT, x DOUBLE"])
def test_a_column_that_a_file_lacks_is_refused_unless_null_is_meant(
    spark: SparkSession, tmp_path: Path, format_: str, schema: str | None
) -> None:
    folder = write(tmp_path / "in", format_, a=NUMBERS, b={"id": pa.array([3])}, c=NUMBERS)
    declared = {"schema": schema} if schema else {}
    said = refusal(spark, sales(folder, format_, **declared))
    assert said.startswith(f"source.inputs.sales: 1 of 3 files, such as {folder}/b.{format_}, have no column x;")
    with pytest.raises(DataError, match="have no column x"):
        StoredTable.find(str(folder)).read(spark, sales(folder, format_))
    merged = sales(folder, format_, **declared, options={"mergeSchema": "true"})
    assert read(spark, merged) == [(1, 0.5), (1, 0.5), (2, 1.5), (2, 1.5), (3, None)]


@pytest.mark.parametrize("format_", WRITE)
def test_of_any_number_of_files_each_is_looked_at(
    spark: SparkSession, tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footers, "_FEW", 4)
    names = [f"p{number:02}" for number in range(22)]
    folder = write(tmp_path / "in", format_, **dict.fromkeys(names, NUMBERS))
    assert len(read(spark, sales(folder, format_))) == 44
    WRITE[format_](pa.table({"id": [3]}), str(folder / f"p13.{format_}"))
    said = refusal(spark, sales(folder, format_))
    assert said.startswith(f"source.inputs.sales: 1 of 22 files, such as {folder}/p13.{format_}, have no column x;")
    for name in ("p07", "p17"):
        (folder / f"{name}.{format_}").write_text("id,x\n")
    with pytest.raises(InputMissingError) as caught:
        read(spark, sales(folder, format_))
    assert [offence.split(" cannot be read")[0] for offence in caught.value.offences] == [
        f"source.inputs.sales: {folder}/{name}.{format_}" for name in ("p07", "p17")
    ]


def test_a_timestamp_in_nanoseconds_is_found_in_a_file_between_others(spark: SparkSession, tmp_path: Path) -> None:
    times = {unit: {**NUMBERS, "t": pa.array([1000, 2000], pa.timestamp(unit))} for unit in ("us", "ns")}
    folder = write(tmp_path / "in", "parquet", a=times["us"], b=times["ns"], c=times["us"])
    said = refusal(spark, sales(folder, "parquet"))
    assert f"column t of {folder}/b.parquet is timestamp in nanoseconds" in said


@pytest.mark.parametrize(
    ("second", "schema", "type_"),
    [
        (pa.array(["one", "2"]), None, "string; expected double"),
        (pa.array(["one", "2"]), "id BIGINT, x DOUBLE", "string; expected double"),
        (pa.array([[0.5], [1.5]]), None, "array<double>; expected double"),
        (pa.array([2**60, 2]), None, "bigint; expected double"),
    ],
)
def test_a_column_that_an_orc_file_has_of_another_type_is_refused(
    spark: SparkSession, tmp_path: Path, second: pa.Array, schema: str | None, type_: str
) -> None:
    folder = write(tmp_path / "in", "orc", a=NUMBERS, b={**NUMBERS, "x": second})
    said = refusal(spark, sales(folder, "orc", **({"schema": schema} if schema else {})))
    assert said.startswith(f"source.inputs.sales: column x of {folder}/b.orc has ORC type {type_}, as the other files")


def test_orc_files_whose_types_hold_the_same_values_are_read(spark: SparkSession, tmp_path: Path) -> None:
    narrow = {"id": pa.array([3], pa.int32()), "x": pa.array([2.5], pa.float32())}
    folder = write(tmp_path / "in", "orc", a=NUMBERS, b=narrow)
    assert read(spark, sales(folder, "orc")) == [(1, 0.5), (2, 1.5), (3, 2.5)]


def test_orc_files_of_old_hive_have_their_columns_by_place(spark: SparkSession, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", "orc", a={"_col0": pa.array([1]), "_col1": pa.array([0.5])})
    assert read(spark, sales(folder, "orc", schema="id BIGINT, x DOUBLE")) == [(1, 0.5)]
    assert "have no column y" in refusal(spark, sales(folder, "orc", schema="id BIGINT, x DOUBLE, y DOUBLE"))


def test_files_of_partitions_have_the_columns_of_their_folders(spark: SparkSession, tmp_path: Path) -> None:
    for format_ in WRITE:
        for x in ("0.5", "1.5"):
            write(tmp_path / format_ / f"x={x}", format_, a={"id": pa.array([1])})
        assert read(spark, sales(tmp_path / format_, format_)) == [(1, 0.5), (1, 1.5)]
