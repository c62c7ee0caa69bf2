"""Inputs that are no list of files: catalog tables, a database over JDBC, frames from code; what is kept of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, InputMissingError, InterruptedRunError, PipelineError, ServiceError
from pipeline.preparation import prepare as module
from pipeline.preparation.prepare import prepare_dataset
from tests.spark.datasets import config_of, read_all

ROWS = 300


def rows() -> pd.DataFrame:
    random = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "id": np.arange(ROWS),
            "price": random.gamma(2, 10, ROWS),
            "shop": random.choice(["a", "b", "Łódź"], ROWS),
            "sold": np.arange(ROWS) % 2,
        }
    )


def sales_config(folder: Path, input_: dict[str, Any] | None) -> PipelineConfig:
    return config_of(
        folder,
        source={"inputs": {"sales": input_} if input_ else {}, "id": "id"},
        features={"price": {"type": "numeric"}, "shop": {"type": "categorical"}},
        label={"column": "sold"},
    )


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(rows())


@pytest.fixture
def table(spark: SparkSession, frame: DataFrame, tmp_path: Path) -> Iterator[str]:
    frame.write.option("path", str(tmp_path / "stored table")).saveAsTable("stored_sales")
    yield "stored_sales"
    spark.sql("DROP TABLE stored_sales")


@pytest.fixture
def database(spark: SparkSession, frame: DataFrame, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The options of a Derby database in memory; Spark ships Derby."""
    system = spark._jvm.java.lang.System  # type: ignore[union-attr]
    system.setProperty("derby.stream.error.file", str(tmp_path / "derby.log"))
    url = f"jdbc:derby:memory:{tmp_path.name}"
    driver = "org.apache.derby.jdbc.EmbeddedDriver"
    frame.write.jdbc(f"{url};create=true", "sales", properties={"driver": driver})
    yield {"url": url, "driver": driver, "dbtable": "sales"}
    with pytest.raises(Exception, match="dropped"):
        spark.read.jdbc(f"{url};drop=true", "sales", properties={"driver": driver}).collect()


def test_a_table_of_the_catalog_is_known_by_its_files(spark: SparkSession, table: str, tmp_path: Path) -> None:
    dataset = prepare_dataset(spark, sales_config(tmp_path, {"table": table}))
    assert dataset.manifest.accounting.published == ROWS
    known = dataset.manifest.inputs["sales"]
    paths = {Path(path.removeprefix("file://").replace("%20", " ")) for path, _, _ in known["files"]}
    assert paths == set((tmp_path / "stored table").glob("*.parquet"))
    assert known["bytes"] == sum(path.stat().st_size for path in paths)


def test_a_table_that_changes_meanwhile_is_not_published(
    spark: SparkSession, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn_and_rewrite(*arguments: Any) -> Any:
        found = learn(*arguments)
        for path in (tmp_path / "stored table").glob("*.parquet"):
            path.write_bytes(path.read_bytes() + b"more")
        return found

    learn = module.learn
    monkeypatch.setattr(module, "learn", learn_and_rewrite)
    with pytest.raises(InterruptedRunError, match=r"input sales: .*\.parquet changed"):
        prepare_dataset(spark, sales_config(tmp_path, {"table": table}))


def test_a_database_is_read_over_jdbc_and_known_by_the_sum_of_its_rows(
    spark: SparkSession, database: dict[str, str], tmp_path: Path
) -> None:
    config = sales_config(tmp_path, {"format": "jdbc", "options": database})
    dataset = prepare_dataset(spark, config)
    assert dataset.manifest.accounting.published == ROWS
    assert sorted(read_all(dataset)["id"]) == list(range(ROWS))
    known = dataset.manifest.inputs["sales"]
    assert known["rows"] == ROWS
    split_up = {**database, "partitionColumn": "id", "lowerBound": "0", "upperBound": "300", "numPartitions": "3"}
    again = prepare_dataset(spark, sales_config(tmp_path / "again", {"format": "jdbc", "options": split_up}))
    assert again.manifest.inputs["sales"] == known


def test_a_database_that_changes_meanwhile_is_not_published(
    spark: SparkSession, frame: DataFrame, database: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn_and_insert(*arguments: Any) -> Any:
        found = learn(*arguments)
        frame.limit(1).write.jdbc(database["url"], "sales", "append", properties={"driver": database["driver"]})
        return found

    learn = module.learn
    monkeypatch.setattr(module, "learn", learn_and_insert)
    with pytest.raises(InterruptedRunError, match="input sales: its rows changed"):
        prepare_dataset(spark, sales_config(tmp_path, {"format": "jdbc", "options": database}))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"url": "jdbc:nobody:db", "driver": None}, ServiceError, "no driver is there for its url; expected the jar"),
        ({"url": "jdbc:nobody:db"}, ConfigError, "its driver does not know its url; expected the url of a database"),
        ({"driver": "org.nobody.Driver"}, ServiceError, "class org.nobody.Driver is not there; expected its jar"),
        (
            {"url": "jdbc:derby:/no/database"},
            InputMissingError,
            "the database says `Database '/no/database' not found.`",
        ),
        ({"dbtable": "nothing"}, InputMissingError, "the database says `Table/View 'NOTHING' does not exist.`"),
        ({"url": None}, ConfigError, "Spark says `Option 'url' is required`; expected it among the input's options"),
        ({"dbtable": None}, ConfigError, "Spark says `Option 'dbtable' or 'query' is required`"),
        ({"dbtable": None, "query": "select * fro sales"}, ConfigError, "expected SQL that it understands"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_database_is_said_in_one_line(
    spark: SparkSession,
    database: dict[str, str],
    tmp_path: Path,
    options: dict[str, str | None],
    error: type[PipelineError],
    said: str,
) -> None:
    given = {key: one for key, one in {**database, **options}.items() if one is not None}
    with pytest.raises(error) as caught:
        prepare_dataset(spark, sales_config(tmp_path, {"format": "jdbc", "options": given}))
    (offence,) = caught.value.offences
    assert offence.startswith("source.inputs.sales: ")
    assert said in offence
    assert "\n" not in offence


@pytest.mark.parametrize("name", ["no_sales", "nowhere.sales", "a.b.c.d"])
def test_a_table_that_the_catalog_does_not_have_is_a_missing_input(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputMissingError) as caught:
        prepare_dataset(spark, sales_config(tmp_path, {"table": name}))
    (offence,) = caught.value.offences
    assert offence.startswith(f"source.inputs.sales.table is {name}: ")
    assert offence.endswith("; expected a table or view of Spark's catalog; check its name")
    assert "\n" not in offence


def test_a_frame_from_code_is_known_by_the_sum_of_its_rows(
    spark: SparkSession, frame: DataFrame, tmp_path: Path
) -> None:
    first = prepare_dataset(spark, sales_config(tmp_path, None), frame)
    shuffled = frame.repartition(7).orderBy("price")
    second = prepare_dataset(spark, sales_config(tmp_path / "second", None), shuffled)
    assert first.manifest.inputs["frame"] == second.manifest.inputs["frame"]
    assert first.content_id == second.content_id
    changed = spark.createDataFrame(rows().assign(price=lambda table: table["price"].where(table["id"] != 7, 8.0)))
    third = prepare_dataset(spark, sales_config(tmp_path / "third", None), changed)
    assert third.manifest.inputs["frame"]["rows"] == ROWS
    assert third.manifest.inputs["frame"] != first.manifest.inputs["frame"]


def test_a_password_of_the_environment_is_used_but_not_kept_and_a_new_one_makes_no_new_dataset(
    spark: SparkSession, database: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {**database, "url": "${env:DATABASE}", "password": "${env:DATABASE_PASSWORD}"}
    config = sales_config(tmp_path, {"format": "jdbc", "options": named})
    monkeypatch.setenv("DATABASE", database["url"])
    with pytest.raises(ConfigError, match=r"options\.password names \$\{env:DATABASE_PASSWORD\}, which is not"):
        prepare_dataset(spark, config)
    found = set()
    for password in ("hunter2", "hunter3"):
        monkeypatch.setenv("DATABASE_PASSWORD", password)
        found.add(prepare_dataset(spark, config).content_id)
    assert len(found) == 1
    kept = [path.read_bytes() for path in (tmp_path / "out").rglob("*.json")]
    secrets = ("DATABASE", "hunter", database["url"], database["driver"])
    assert not any(secret.encode() in text for text in kept for secret in secrets)
