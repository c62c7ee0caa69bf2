"""What `pipeline init` proposes for tables as they come runs unedited, and keeps each row of them as it was written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from pipeline.config import load_config
from pipeline.dataset import Dataset
from pipeline.errors import DataError, InputMissingError, ServiceError
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.preview import preview
from pipeline.preparation.propose import propose
from pipeline.preparation.seen import Look
from tests.spark.datasets import config_of, read_all

ROWS = 400

Proposed = Callable[..., tuple[dict[str, Any], Dataset]]


def table(rows: int = ROWS, **columns: Any) -> pd.DataFrame:
    random = np.random.default_rng(3)
    values = {"id": np.arange(rows), "x": random.normal(size=rows).round(3), "label": random.integers(0, 2, rows)}
    return pd.DataFrame({**values, **columns})


@pytest.fixture
def proposed(spark: SparkSession, tmp_path: Path) -> Proposed:
    """The proposal for a table as plain values, and the dataset that the very file gives."""

    def run(name: str, label: str | None = None) -> tuple[dict[str, Any], Dataset]:
        text = propose(spark, str(tmp_path / name), label, str(tmp_path)).text(str(tmp_path))
        (tmp_path / "pipeline.yaml").write_text(text)
        config = load_config(str(tmp_path / "pipeline.yaml"))
        preview(spark, config)
        return yaml.safe_load(text), prepare_dataset(spark, config)

    return run


WRITTEN: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "commas": (lambda path: table().to_csv(path, index=False), {}),
    "semicolons": (lambda path: table().to_csv(path, index=False, sep=";"), {"sep": ";"}),
    "tabs": (lambda path: table(note="a,b").to_csv(path, index=False, sep="\t"), {"sep": "\t"}),
    "bars": (lambda path: table().to_csv(path, index=False, sep="|"), {"sep": "|"}),
    "line breaks": (lambda path: table(note="a\nb").to_csv(path, index=False), {"multiLine": "true"}),
    "a long text of many lines": (
        lambda path: table(note=[f"{'a' * 999}\n" * 250 * (row == 3) for row in range(ROWS)]).to_csv(
            path, index=False, sep=";"
        ),
        {"sep": ";", "multiLine": "true"},
    ),
    "an index": (lambda path: table().to_csv(path), {"enforceSchema": "true"}),
    "double names": (
        lambda path: table(y=1.5).to_csv(path, index=False, header=["id", "x", "label", "x"]),
        {"enforceSchema": "true"},
    ),
    "latin letters": (
        lambda path: table(note="grün").to_csv(path, index=False, encoding="latin-1"),
        {"encoding": "windows-1252"},
    ),
    "latin letters in names": (
        lambda path: table(größe=1.5).to_csv(path, index=False, encoding="latin-1"),
        {"encoding": "windows-1252"},
    ),
    "wide letters": (
        lambda path: table(note="grün").to_csv(path, index=False, encoding="utf-16"),
        {"encoding": "UTF-16", "multiLine": "true"},
    ),
    "a mark of UTF-8": (lambda path: table().to_csv(path, index=False, encoding="utf-8-sig"), {}),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_csv_is_read_as_it_was_written(proposed: Proposed, tmp_path: Path, how: str) -> None:
    write, options = WRITTEN[how]
    write(tmp_path / "t.csv")
    values, dataset = proposed("t.csv", "label")
    assert values["source"]["inputs"]["table"].get("options", {}) == options
    assert dataset.manifest.accounting.published == ROWS
    (id_,) = values["source"]["id"]
    assert sorted(read_all(dataset)[id_]) == list(range(ROWS))


def test_a_file_by_its_ending_for_tabs_is_csv(proposed: Proposed, tmp_path: Path) -> None:
    table().to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    values, dataset = proposed("t.tsv")
    assert (values["source"]["inputs"]["table"]["format"], dataset.manifest.accounting.published) == ("csv", ROWS)


@pytest.mark.parametrize("indent", [None, 1])
def test_json_is_read_by_lines_or_as_one_array_with_keys_of_any_names(
    proposed: Proposed, tmp_path: Path, indent: int | None
) -> None:
    rows = [
        {**row, "meta": {"user-agent": "x", "a `b`": {"c d": [1]}}}
        for row in json.loads(table().to_json(orient="records"))
    ]
    text = json.dumps(rows, indent=1) if indent else "\n".join(map(json.dumps, rows))
    (tmp_path / "t.json").write_text(text)
    values, dataset = proposed("t.json")
    assert values["source"]["inputs"]["table"].get("options", {}) == ({"multiLine": "true"} if indent else {})
    assert dataset.manifest.accounting.published == ROWS


def test_codes_keep_their_zeros(proposed: Proposed, tmp_path: Path) -> None:
    table(zip=[f"{row % 9:05}" for row in range(ROWS)], n=[row % 9 for row in range(ROWS)]).to_csv(
        tmp_path / "t.csv", index=False
    )
    values, dataset = proposed("t.csv")
    assert values["features"]["zip"] == {"type": "categorical", "min_count": 1}
    assert values["features"]["n"] == {"type": "numeric"}
    (state,) = (one for one in dataset.manifest.statistics["features"] if one["name"] == "zip")
    assert sorted(state["vocabulary"]) == [f"{row:05}" for row in range(9)]


def test_columns_may_have_the_names_of_what_preparation_makes(proposed: Proposed, tmp_path: Path) -> None:
    rows = table(
        x_missing=0.5 * np.arange(ROWS),
        t=pd.date_range("2024-01-01", periods=ROWS, freq="h"),
        t_hour=np.arange(ROWS) % 24 * 1.5,
        **dict.fromkeys(("_hash", "_label", "_fold", "_bucket", "_typed_x"), 1.5 * np.arange(ROWS)),
    )
    rows.loc[rows.index % 9 == 0, "x"] = None
    rows.to_csv(tmp_path / "t.csv", index=False)
    values, dataset = proposed("t.csv")
    assert {one["column"] for one in values["features"].values() if "column" in one} >= {"x_missing", "t_hour", "_hash"}
    assert dataset.manifest.accounting.published == ROWS


def test_a_class_too_rare_for_three_splits_is_left_out_and_said(proposed: Proposed, tmp_path: Path) -> None:
    classes = np.where(np.arange(ROWS) == 7, "rare", np.array(["p", "q", "r"])[np.arange(ROWS) % 3])
    table(label=classes).to_csv(tmp_path / "t.csv", index=False)
    values, dataset = proposed("t.csv")
    assert values["label"] == {"column": "label", "type": "multiclass", "classes": ["p", "q", "r"]}
    assert dataset.manifest.accounting.reasons == {"label label is not a known class": 1}


def test_a_small_table_gives_larger_parts_to_validation_and_test(proposed: Proposed, tmp_path: Path) -> None:
    for rows, fraction in ((24, 0.1), (30, 0.2)):
        table(rows).to_csv(tmp_path / "t.csv", index=False)
        values, dataset = proposed("t.csv")
        assert dataset.manifest.accounting.published == rows
        assert values["split"] == {"by": "hash", "validation": fraction, "test": fraction}


def test_a_label_that_cannot_be_learned_gives_way_to_another_unless_it_was_asked_for(
    spark: SparkSession, proposed: Proposed, tmp_path: Path
) -> None:
    rows = table(target=(np.arange(ROWS) == 7).astype(int), y=np.arange(ROWS) // 3 % 2).drop(columns="label")
    rows.to_csv(tmp_path / "t.csv", index=False)
    values, _ = proposed("t.csv")
    assert values["label"] == {"column": "y", "type": "binary"}
    with pytest.raises(DataError) as caught:
        propose(spark, str(tmp_path / "t.csv"), "target")
    (offence,) = caught.value.offences
    assert "cannot be learned: class 1.0 has 1 rows, of which a split has none; expected rows of every class" in offence


@pytest.fixture
def driver_in_tokyo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("driver_in_tokyo")
def test_cuts_in_time_are_the_same_wherever_the_driver_is(spark: SparkSession, tmp_path: Path) -> None:
    table(t=pd.date_range("2024-01-01", periods=ROWS, freq="h")).to_parquet(tmp_path / "t.parquet")
    split = yaml.safe_load(propose(spark, str(tmp_path / "t.parquet"), "label").split)
    assert split["validation_from"] == "2024-01-14T07:00:00"
    assert split["test_from"] == "2024-01-15T23:00:00"


def test_numbers_that_may_be_infinite_are_clipped(proposed: Proposed, tmp_path: Path) -> None:
    rows = table()
    rows.loc[rows.index % 10 == 0, "x"] = np.inf
    rows.to_parquet(tmp_path / "t.parquet")
    values, dataset = proposed("t.parquet")
    assert values["features"]["x"]["clip"] == [0.001, 0.999]
    assert dataset.manifest.accounting.rejected == 0


def test_a_large_table_is_looked_at_by_rows_that_a_hash_chooses(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.preparation.seen._ROWS", 1000)
    frame = spark.range(20_000).selectExpr("id", "id % 2 AS two", "array(id) AS items")
    looks = [Look.at(one) for one in (frame, frame.repartition(3))]
    assert looks[0] == looks[1]
    assert looks[0].rows == 20_000
    id_, two = looks[0].columns
    assert 800 < id_.rows < 1000
    assert (id_.distinct, two.distinct) == (id_.rows, 2)


def test_times_beyond_those_of_pandas_are_counted(proposed: Proposed, spark: SparkSession, tmp_path: Path) -> None:
    for type_ in ("timestamp", "timestamp_ntz"):
        until = f"IF(id % 2 = 0, NULL, cast(concat('999', id, '-12-31 23:59:59') AS {type_})) AS until"
        (seen,) = Look.at(spark.range(10).selectExpr(until)).columns
        assert (seen.type.simpleString(), seen.rows, seen.present, seen.distinct) == (type_, 10, 5, 5)
    table(until=np.where(np.arange(ROWS) % 9, "2024-05-01 10:00:00", "9999-12-31 23:59:59")).to_csv(
        tmp_path / "t.csv", index=False
    )
    values, dataset = proposed("t.csv")
    assert values["features"]["until"]["type"] == "timestamp"
    assert dataset.manifest.accounting.published == ROWS


def test_a_folder_with_the_log_of_delta_is_no_parquet(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "t" / "_delta_log").mkdir(parents=True)
    (tmp_path / "t" / "_delta_log" / "00000000000000000000.json").write_text("{}")
    table().to_parquet(tmp_path / "t" / "part-0.parquet")
    with pytest.raises(ServiceError, match="format delta is not part of this Spark"):
        propose(spark, str(tmp_path / "t"))
    inputs = {"t": {"path": str(tmp_path / "t"), "format": "parquet"}}
    config = config_of(tmp_path, source={"inputs": inputs}, features={"x": {"type": "numeric"}})
    with pytest.raises(InputMissingError, match=r"is a Delta table, .* expected format: delta"):
        list_inputs(config)
