"""Timestamps in nanoseconds, as pandas writes them, are what the same ones in microseconds are; never just numbers."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from pipeline.config import PipelineConfig, load_config, parse_config
from pipeline.errors import DataError, InputMissingError
from pipeline.inference.predictor import Predictor
from pipeline.inference.score import score_table
from pipeline.inference.stored_table import StoredTable
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.preview import preview
from pipeline.preparation.propose import propose
from pipeline.preparation.read import read_inputs
from pipeline.preparation.session import preparation_settings
from tests.small_model import raw_rows, small_dataset, small_model
from tests.spark.datasets import read_all

NAIVE, UTC = pa.timestamp("ns"), pa.timestamp("ns", "UTC")
ODD = [-1, -999, -1000, -1001, 0, 1, 999, 1000, None, 2**63 - 1, -(2**63), 1_700_000_000_123_456_789]
ROWS = 300

Make = Callable[..., PipelineConfig]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(path: Path, source: dict[str, Any] | None = None, **input_: Any) -> PipelineConfig:
        return parse_config(
            {
                "source": {
                    "inputs": {"sales": {"path": str(path), "format": "parquet", **input_}},
                    "id": "id",
                    **(source or {}),
                },
                "features": {
                    "paid": {"type": "timestamp", "parts": ["year", "weekday", "hour"]},
                    "sent": {"type": "elapsed", "since_column": "paid", "missing": "mean"},
                },
                "label": {"column": "label"},
                "split": {
                    "by": "time",
                    "key": "paid",
                    "validation_from": "2024-03-01T00:00:00",
                    "test_from": "2024-04-01T00:00:00",
                },
                "dataset": {"url": str(tmp_path / f"out of {path.name}"), "keep": ["paid", "sent"]},
                "training": {"run_url": str(tmp_path / "run")},
            }
        )

    return build


def sales(unit: str) -> pa.Table:
    """Whole microseconds of 2024 and of before 1970, some missing, one column naive and one of UTC."""
    random = np.random.default_rng(5)
    start = np.where(np.arange(ROWS) % 5, 1_704_067_200, -86_400 * 366).astype("int64")
    paid = (start + random.integers(0, 150 * 86_400, ROWS)) * 10**6 + random.integers(0, 10**6, ROWS)
    sent = paid + random.integers(0, 10**12, ROWS)
    moments = {"paid": (paid, None), "sent": (sent, "UTC")}
    return pa.table(
        {
            "id": np.arange(ROWS),
            "label": random.integers(0, 2, ROWS),
            **{
                name: pa.array(
                    values, pa.timestamp("us", zone), mask=(random.random(ROWS) < 0.1) & (name == "sent")
                ).cast(pa.timestamp(unit, zone))
                for name, (values, zone) in moments.items()
            },
        }
    )


def write_both(folder: Path) -> tuple[Path, Path]:
    """The same rows in microseconds and in nanoseconds, each as a folder by shop with two files."""
    for unit in ("us", "ns"):
        for shop, rows in (("a", sales(unit)[:140]), ("b", sales(unit)[140:])):
            (folder / unit / f"shop={shop}").mkdir(parents=True)
            pq.write_table(rows, folder / unit / f"shop={shop}" / "part.parquet")
    return folder / "us", folder / "ns"


def frame_of(spark: SparkSession, config: PipelineConfig) -> DataFrame:
    return read_inputs(spark, config, list_inputs(config))["sales"]


def micros(frame: DataFrame) -> list[list[int | None]]:
    columns = [f"unix_micros(cast({name} as timestamp)) as {name}" for name in frame.columns]
    return [list(row) for row in frame.selectExpr(*columns).collect()]


@pytest.fixture
def in_new_york(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    yield
    spark.conf.set("spark.sql.session.timeZone", str(before))


def test_nanoseconds_are_floored_to_microseconds_over_their_whole_range(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    table = pa.table({"naive": pa.array(ODD, NAIVE), "utc": pa.array(ODD, UTC)})
    pq.write_table(table, tmp_path / "odd.parquet", use_dictionary=False)
    with preparation_settings(spark):
        frame = frame_of(spark, make(tmp_path / "odd.parquet"))
        assert [field.dataType for field in frame.schema] == [T.TimestampNTZType(), T.TimestampType()]
        assert micros(frame) == [[None if value is None else value // 1000] * 2 for value in ODD]


def test_they_give_the_rows_the_statistics_and_the_content_id_that_microseconds_give(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    source = {
        "where": "paid >= timestamp'1969-02-01 00:00:00'",
        "sample": {"fraction": 0.8},
        "query": "select * from sales where sent is null or sent - paid < interval 9 days",
        "row_changes": "allowed",
    }
    first, second = (prepare_dataset(spark, make(path, source)) for path in write_both(tmp_path / "{a}"))
    assert first.content_id == second.content_id
    assert min(first.manifest.rows(split) for split in ("train", "validation", "test")) > 20
    us, ns = (read_all(dataset).sort_values("id", ignore_index=True) for dataset in (first, second))
    pd.testing.assert_frame_equal(us, ns)
    written = sales("us").to_pandas().loc[ns["id"], "paid"].to_numpy()
    assert np.array_equal(ns["paid"].to_numpy(), written)
    assert written.min() < np.datetime64("1970-01-01")


def test_a_preview_and_a_proposal_say_the_same_and_the_proposal_runs(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    us, ns = write_both(tmp_path)
    shown = [preview(spark, make(path)) for path in (us, ns)]
    assert shown[0]["columns"] == shown[1]["columns"]
    assert shown[0]["sample"] == shown[1]["sample"]
    texts = []
    for path in (us, ns):
        pq.write_table(sales(path.name), f"{path}.parquet")
        texts.append(propose(spark, f"{path}.parquet").text(str(tmp_path)))
    assert re.sub(r"\bus\b", "ns", texts[0]) == texts[1]
    values = yaml.safe_load(texts[1])
    assert values["split"]["key"] == "paid"
    assert {"paid", "sent"} <= set(values["features"])
    (tmp_path / "proposed.yaml").write_text(texts[1].replace("workspace/", f"{tmp_path}/workspace/"))
    dataset = prepare_dataset(spark, load_config(str(tmp_path / "proposed.yaml")))
    assert dataset.manifest.accounting.published == ROWS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    return small_model(str(folder / "model"), small_dataset(str(folder / "data")))


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_a_table_is_scored_as_the_frame_it_was_written_from(
    spark: SparkSession, in_new_york: None, make: Make, model: str, tmp_path: Path, zone: str | None
) -> None:
    rows = raw_rows(400, 3).astype({"when": "datetime64[ns]"})
    rows.loc[::3, "when"] += pd.Timedelta(999, "ns")
    rows.loc[::7, "when"] = pd.Timestamp(-1)  # the last hour of 1969
    rows["when"] = rows["when"].dt.tz_localize("UTC").dt.tz_convert(zone) if zone else rows["when"]
    (tmp_path / "in").mkdir()
    for part in (0, 1):
        rows[part::2].to_parquet(tmp_path / "in" / f"part {part}.parquet", index=False)
    assert pq.read_schema(tmp_path / "in" / "part 0.parquet").field("when").type == pa.timestamp("ns", zone)
    result = score_table(lambda: spark, make(tmp_path), str(tmp_path / "in"), str(tmp_path / "out"), model)
    assert result["rows"] == {"in": 400, "out": 400}
    scored = pd.read_parquet(tmp_path / "out").sort_values("id")
    assert np.array_equal(scored["probability"], Predictor.load(model).predict(rows)["probability"])


@pytest.mark.parametrize(
    "other",
    [pa.timestamp("us"), UTC, pa.int64()],
    ids=["microseconds", "UTC", "numbers"],
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_files_of_which_one_has_nanoseconds_and_one_something_else_are_refused_by_name(
    spark: SparkSession, make: Make, tmp_path: Path, other: pa.DataType, is_first: bool
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    types = [NAIVE, other] if is_first else [other, NAIVE]
    pq.write_table(pa.table({"id": [1], "paid": pa.array([1000], types[0])}), folder / "a.parquet")
    pq.write_table(pa.table({"id": [2], "paid": pa.array([1000], types[1])}), folder / "b.parquet")
    config, declared = make(folder), make(folder, schema="id BIGINT, paid BIGINT")
    for action in (
        lambda: frame_of(spark, config),
        lambda: frame_of(spark, declared),
        lambda: StoredTable.find(str(folder)).read(spark, config),
    ):
        with preparation_settings(spark), pytest.raises(DataError) as caught:
            action().collect()
        (offence,) = caught.value.offences
        assert re.fullmatch(rf"\S+: column paid of {folder}/b\.parquet [^\n]+; expected [^\n]+", offence)
    without = frame_of(spark, make(folder, schema="id BIGINT"))
    assert without.count() == 2


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("TIMESTAMP", datetime.datetime(2023, 11, 14, 22, 13, 20, 123456)),
        ("TIMESTAMP_NTZ", datetime.datetime(2023, 11, 14, 22, 13, 20, 123456)),
        ("BIGINT", ODD[-1]),
    ],
)
@pytest.mark.parametrize("written", [NAIVE, UTC], ids=["naive", "UTC"])
def test_a_schema_says_which_timestamp_it_is_or_that_it_is_to_stay_a_number(
    spark: SparkSession, make: Make, tmp_path: Path, declared: str, expected: Any, written: pa.DataType
) -> None:
    table = pa.table(
        {"id": [1], "a `strange` name.1": pa.array(ODD[-1:], written), "other": pa.array([[1]], pa.list_(written))}
    )
    pq.write_table(table, tmp_path / "one.parquet")
    with preparation_settings(spark):
        frame = frame_of(spark, make(tmp_path / "one.parquet", schema=f"id INT, `a ``strange`` name.1` {declared}"))
        assert frame.schema[1].dataType.simpleString() == declared.lower()
        assert frame.selectExpr("cast(`a ``strange`` name.1` as string)").collect()[0][0] == str(expected)


@pytest.fixture
def numbers_allowed(spark: SparkSession) -> Iterator[None]:
    spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    yield
    spark.conf.unset("spark.sql.legacy.parquet.nanosAsLong")


def test_a_view_that_reads_files_by_itself_is_given_no_numbers(
    spark: SparkSession, numbers_allowed: None, make: Make, tmp_path: Path
) -> None:
    us, ns = write_both(tmp_path)
    for folder in (us, ns):
        spark.sql(f"CREATE VIEW sales_by_itself AS SELECT * FROM parquet.`{folder}`")
        try:
            config = make(ns, {"inputs": {"sales": {"table": "sales_by_itself"}}})
            if folder == us:
                assert preview(spark, config)["columns"]["paid"] == "timestamp_ntz"
            else:
                with pytest.raises(DataError, match=r"(?i)parquet"):
                    preview(spark, config)
        finally:
            spark.sql("DROP VIEW sales_by_itself")
    assert spark.conf.get("spark.sql.legacy.parquet.nanosAsLong") == "true"


def test_where_spark_takes_names_for_one_whatever_their_case_so_does_the_comparison(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"paid": pa.array([1000], NAIVE)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"PAID": pa.array([1], pa.timestamp("us"))}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"column PAID of \S+b\.parquet is timestamp in microseconds"):
        StoredTable.find(str(tmp_path)).read(spark, make(tmp_path))


def test_a_table_is_scored_with_its_old_dates_as_they_stand(spark: SparkSession, make: Make, tmp_path: Path) -> None:
    old = datetime.datetime(1500, 1, 1, tzinfo=datetime.timezone.utc)
    pq.write_table(pa.table({"paid": pa.array([old], pa.timestamp("us", "UTC"))}), tmp_path / "old.parquet")
    with preparation_settings(spark):
        frame = StoredTable.find(str(tmp_path / "old.parquet")).read(spark, make(tmp_path))
        assert frame.selectExpr("unix_micros(paid)").collect()[0][0] == int(old.timestamp()) * 10**6


def test_an_empty_file_is_passed_over_and_one_of_another_format_is_named(
    spark: SparkSession, make: Make, tmp_path: Path
) -> None:
    _, folder = write_both(tmp_path)
    (folder / "y.parquet").touch()
    assert frame_of(spark, make(folder)).count() == ROWS
    (folder / "z.parquet").write_text("id,label\n1,0\n")
    with pytest.raises(InputMissingError, match=r"z\.parquet"):
        frame_of(spark, make(folder))
