"""The user's SQL reads the inputs and nothing else, computes the same each time, and means what it does elsewhere."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.catalog import Catalog

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.preview import preview
from tests.spark.datasets import config_of, read_all

ROWS = 60


@pytest.fixture
def folder(spark: SparkSession, tmp_path: Path) -> Iterator[Path]:
    numbers = pd.RangeIndex(ROWS)
    rows = pd.DataFrame({"id": numbers, "x": numbers / 7, "c": "a", "label": numbers // 2 % 2})
    rows.to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"c": ["a"], "z": [1.0]}).to_parquet(tmp_path / "dim.parquet")
    spark.sql(f"CREATE TABLE dims USING parquet LOCATION '{tmp_path}/dims' AS SELECT 'a' AS c, 2.0D AS z")
    spark.sql("CREATE VIEW more_dims AS SELECT * FROM dims")
    spark.range(3).createOrReplaceTempView("mine")
    yield tmp_path
    spark.catalog.dropTempView("mine")
    spark.sql("DROP VIEW more_dims")
    spark.sql("DROP TABLE dims")


def made(folder: Path, **source: Any) -> PipelineConfig:
    inputs = {"t": {"path": str(folder / "t.csv"), "schema": "id INT, x DOUBLE, c STRING, label INT"}}
    return config_of(
        folder,
        source={"inputs": inputs, "id": "id", **source},
        features={"x": {"type": "numeric"}},
        label={"column": "label"},
    )


@pytest.mark.parametrize("look", [preview, prepare_dataset])
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SELECT t.* FROM t LEFT JOIN parquet.`{0}/dim.parquet` USING (c)", ["file:{0}/dim.parquet"]),
        ("SELECT t.* FROM t LEFT JOIN dims USING (c)", ["spark_catalog.default.dims"]),
        ("SELECT t.* FROM t LEFT JOIN more_dims USING (c)", ["spark_catalog.default.more_dims"]),
        (
            "WITH d AS (SELECT c FROM dims) SELECT * FROM t "
            "WHERE c IN (SELECT c FROM d) AND id NOT IN (SELECT id FROM mine)",
            ["spark_catalog.default.dims", "mine"],
        ),
    ],
)
def test_what_a_query_reads_beside_the_inputs_is_refused_by_name(
    spark: SparkSession, folder: Path, query: str, names: list[str], look: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        look(spark, made(folder, query=query.format(folder)))
    said = [offence.split(", which is no input;")[0] for offence in caught.value.offences]
    assert sorted(said) == sorted(f"source.query reads {name.format(folder)}" for name in names)


CHANCE = {
    "rand(3)": "rand(3)",
    "uuid()": "uuid()",
    "1 + abs(rand(3) * id)": "rand(3)",
    "current_timestamp()": "current_timestamp()",
    "unix_timestamp()": "current_timestamp()",
    "date_add(current_date(), id)": "current_date()",
    "monotonically_increasing_id()": "monotonically_increasing_id()",
    "max(rand(4)) OVER (PARTITION BY c)": "rand(4)",
    "(SELECT count(*) FROM t WHERE rand(5) < 0.5)": "rand(5)",
}


@pytest.mark.parametrize("expression", CHANCE)
def test_what_is_by_chance_or_by_the_clock_is_refused(spark: SparkSession, folder: Path, expression: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preview(spark, made(folder, query=f"SELECT *, {expression} AS r FROM (SELECT * FROM t)"))
    (offence,) = caught.value.offences
    assert offence.startswith(f"source.query has {CHANCE[expression]}, which gives other values each time; expected")


def test_a_sample_by_sql_is_refused_and_the_query_is_named_by_its_file(spark: SparkSession, folder: Path) -> None:
    (folder / "q.sql").write_text("SELECT * FROM t TABLESAMPLE (10 PERCENT)")
    with pytest.raises(ConfigError, match=r"^source\.query_file has TABLESAMPLE, which gives other values each time"):
        preview(spark, made(folder, query_file=str(folder / "q.sql")))


def test_a_condition_is_on_the_rows_of_the_primary_input_alone(spark: SparkSession, folder: Path) -> None:
    for where, said in (
        ("x > rand(7)", r"^source\.where has rand\(7\), which gives other values each time"),
        ("c IN (SELECT c FROM dims)", r"^source\.where reads spark_catalog\.default\.dims; expected a condition"),
    ):
        with pytest.raises(ConfigError, match=said):
            preview(spark, made(folder, where=where))


def test_columns_of_our_own_are_suggested_to_nobody(spark: SparkSession, folder: Path) -> None:
    with pytest.raises(DataError, match=r"^source\.where is not valid: .*`nosuch`.*`label`") as caught:
        preview(spark, made(folder, where="nosuch > 3"))
    assert "_pipeline_" not in str(caught.value)


def test_a_query_may_be_as_long_as_it_likes(spark: SparkSession, folder: Path) -> None:
    query = """
        WITH one AS (SELECT c, collect_list(x)[0] AS f, max_by(x, id) AS l FROM t GROUP BY c),
             two AS (SELECT explode(sequence(0, 59)) AS id, input_file_name() AS file)
        SELECT t.*, one.f, row_number() OVER (ORDER BY t.id) AS n, first(t.x) OVER (ORDER BY t.id) AS first, v.w
        FROM t JOIN one USING (c) JOIN two USING (id) JOIN (VALUES ('a', 1)) AS v(c, w) USING (c)
             JOIN t AS again USING (id)
        WHERE t.id IN (SELECT id FROM range(100)) AND EXISTS (SELECT 1 FROM t AS u WHERE u.id = t.id)
    """
    dataset = prepare_dataset(spark, made(folder, query=query))
    assert dataset.manifest.accounting.published == ROWS


@pytest.mark.parametrize("sensitive", [False, True])
def test_names_are_found_in_any_case_where_the_session_finds_them_so(
    spark: SparkSession, folder: Path, sensitive: bool
) -> None:
    spark.conf.set("spark.sql.caseSensitive", str(sensitive).lower())
    try:
        for source in ({"query": "SELECT ID AS id, X AS x, label FROM T"}, {"where": "ID > 20 AND X >= 0"}):
            config = made(folder, **source)
            if sensitive:
                with pytest.raises(DataError, match=r"(?i)cannot be (resolved|found)"):
                    prepare_dataset(spark, config)
            else:
                assert len(read_all(prepare_dataset(spark, config))) == (ROWS if "query" in source else 39)
        assert spark.conf.get("spark.sql.caseSensitive") == str(sensitive).lower()
    finally:
        spark.conf.unset("spark.sql.caseSensitive")


def test_columns_that_differ_by_case_alone_stay_apart(spark: SparkSession, tmp_path: Path) -> None:
    numbers = pd.RangeIndex(ROWS)
    rows = pd.DataFrame({"id": numbers, "Id": 7, "x": numbers / 7, "X": -1.0, "label": numbers // 2 % 2})
    config = config_of(
        tmp_path,
        source={"id": "id", "sample": {"fraction": 0.9}, "query": "SELECT * FROM frame", "row_changes": "allowed"},
        features={"x": {"type": "numeric", "scale": "none"}, "y": {"type": "numeric", "column": "X", "scale": "none"}},
        label={"column": "label"},
    )
    published = read_all(prepare_dataset(spark, config, spark.createDataFrame(rows)))
    assert 40 < len(published) < ROWS
    assert set(published["y"]) == {-1}
    assert published["x"].max() > 7


SECRETS = {
    "cast(c AS int)": r"DataError: cleaning: Spark says `CAST_INVALID_INPUT` of `cast\(c AS int\)`; expected SQL that",
    "element_at(array(1), id + 2)": r"DataError: cleaning: Spark says `INVALID_ARRAY_INDEX_IN_ELEMENT_AT` of `ele",
    "raise_error('no ' || c)": r"PipelineError: cleaning: Spark failed with java\.lang\.RuntimeException; expected it",
}


@pytest.mark.parametrize("expression", SECRETS)
def test_what_cannot_be_computed_shows_no_value_where_columns_are_sensitive(
    spark: SparkSession, folder: Path, expression: str
) -> None:
    rows = pd.read_csv(folder / "t.csv").assign(c="SECRET")
    rows.to_csv(folder / "t.csv", index=False)
    spark.conf.set("spark.sql.ansi.enabled", "true")
    config = made(folder, query=f"SELECT *, {expression} AS n FROM t", sensitive=["c"])
    try:
        with pytest.raises(PipelineError) as caught:
            prepare_dataset(spark, config)
    finally:
        spark.conf.unset("spark.sql.ansi.enabled")
    assert re.match(SECRETS[expression], f"{type(caught.value).__name__}: {caught.value}")
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def test_a_view_of_the_name_of_an_input_comes_back_and_no_other_is_looked_for(
    spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Catalog, "listTables", lambda *_: pytest.fail("all tables were listed"))
    spark.range(3).createOrReplaceTempView("t")
    try:
        dataset = prepare_dataset(spark, made(folder, query="SELECT * FROM t"))
        assert dataset.manifest.accounting.published == ROWS
        assert spark.table("t").count() == 3
    finally:
        spark.catalog.dropTempView("t")


def test_a_sample_is_by_ids_that_the_primary_input_has(spark: SparkSession, folder: Path) -> None:
    source = {"query": "SELECT id AS key, x, label FROM t", "id": ["key"], "sample": {"fraction": 0.5}}
    with pytest.raises(ConfigError) as caught:
        preview(spark, made(folder, **source))
    (offence,) = caught.value.offences
    assert offence.startswith(
        "source.sample is by source.id, and the primary input lacks key; expected ids of id, x, c,"
    )
