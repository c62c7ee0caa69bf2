"""Tables of text are scored as preparation would read them, and no row of them is lost, cut or made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import DataError
from pipeline.inference.predictor import Predictor
from pipeline.inference.score import score_table
from pipeline.inference.stored_table import StoredTable
from pipeline.preparation.session import preparation_settings
from tests.small_model import raw_rows, small_dataset, small_model

COLUMNS = "id,amount,colour,when,paid"
SCHEMA = "id LONG, amount DOUBLE, colour STRING, when TIMESTAMP, paid BOOLEAN, late INT"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    return small_model(str(folder / "model"), small_dataset(str(folder / "data")))


def config_of(folder: Path, input_: dict[str, Any] | None = None, **source: Any) -> PipelineConfig:
    return parse_config(
        {
            "source": {"inputs": {"orders": {"path": "orders.csv", **input_}} if input_ else {}, **source},
            "features": {"amount": {"type": "numeric"}},
            "label": {"column": "late"},
            "dataset": {"url": "data"},
            "training": {"run_url": "run"},
        },
        str(folder),
    )


def refusal(spark: SparkSession, config: PipelineConfig, table: Path, model: str) -> str:
    """What scoring says, which leaves the folder as it was."""
    before = sorted(table.parent.iterdir())
    with pytest.raises(DataError) as caught:
        score_table(lambda: spark, config, str(table), str(table.parent / "out"), model)
    assert sorted(table.parent.iterdir()) == before
    return str(caught.value)


BROKEN = {
    "a short row": ("csv", f"{COLUMNS}\n1,0.5,red,,\n2,0.5\n", 1, 2, "'2,0.5'"),
    "an extra field": ("csv", f"{COLUMNS}\n1,0.5,red,,,EXTRA\n2,0.5,red,,\n", 1, 2, "'1,0.5,red,,,EXTRA'"),
    "broken JSON": ("json", '{"id": 1, "amount": 2}\n{"id": 2, "amount"\n', 1, 2, """'{"id": 2, "amount"'"""),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_row_that_cannot_be_parsed_is_an_error_with_its_text_its_file_and_their_number(
    spark: SparkSession, tmp_path: Path, model: str, fault: str
) -> None:
    format_, text, faults, rows, shown = BROKEN[fault]
    table = tmp_path / f"in.{format_}"
    if format_ == "json":
        plain = raw_rows(1).assign(when=None, paid=None).to_json(orient="records", lines=True)
        text = f"{plain}{text}"
        rows += 1
    table.write_text(text)
    said = refusal(spark, config_of(tmp_path), table, model)
    assert said.startswith(f"{table}: {faults} of {rows} rows cannot be parsed, such as {shown} of {table}; expected")
    hidden = refusal(spark, config_of(tmp_path, sensitive=["colour"]), table, model)
    assert f"such as one of {table}; expected" in hidden


def test_a_text_with_a_line_break_is_refused_until_the_options_say_so(
    spark: SparkSession, tmp_path: Path, model: str
) -> None:
    rows = raw_rows(20)
    rows.loc[7, "colour"] = "red\nor blue"
    rows[["id", "amount", "when", "paid", "colour"]].to_csv(tmp_path / "in.csv", index=False)
    said = refusal(spark, config_of(tmp_path), tmp_path / "in.csv", model)
    assert "1 of its lines leave a quoted text open, such as '7," in said
    assert "{multiLine: true}" in said
    config = config_of(tmp_path, {"options": {"multiLine": "true"}})
    result = score_table(lambda: spark, config, str(tmp_path / "in.csv"), str(tmp_path / "out"), model)
    assert result["rows"] == {"in": 20, "out": 20}
    assert "red\nor blue" in set(pd.read_parquet(tmp_path / "out")["colour"])


def test_texts_of_another_encoding_are_refused_until_the_options_name_it(
    spark: SparkSession, tmp_path: Path, model: str
) -> None:
    table = tmp_path / "in.csv"
    table.write_bytes(f"{COLUMNS}\n1,0.5,grün,,\n".encode("latin-1"))
    said = refusal(spark, config_of(tmp_path), table, model)
    assert said.startswith(f"{table}: column colour")
    assert "{encoding: ISO-8859-1}" in said
    config = config_of(tmp_path, {"options": {"encoding": "ISO-8859-1"}})
    score_table(lambda: spark, config, str(table), str(tmp_path / "out"), model)
    assert pd.read_parquet(tmp_path / "out")["colour"].tolist() == ["grün"]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("header", ["true", "false"])
def test_a_table_is_read_by_the_options_and_the_schema_of_the_primary_input(
    spark: SparkSession, tmp_path: Path, model: str, header: str, labelled: bool
) -> None:
    rows = raw_rows(50, 4)[COLUMNS.split(",")]
    written = rows.assign(late="not known", when=rows["when"].dt.strftime("%d.%m.%Y %H:%M:%S"))
    written = written if labelled else written.drop(columns="late")
    written.to_csv(tmp_path / "in.csv", index=False, sep=";", header=header == "true")
    options = {"sep": ";", "header": header, "timestampFormat": "dd.MM.yyyy HH:mm:ss"}
    config = config_of(tmp_path, {"schema": SCHEMA, "options": options})
    result = score_table(lambda: spark, config, str(tmp_path / "in.csv"), str(tmp_path / "out"), model)
    assert result["rows"] == {"in": 50, "out": 50}
    scored = pd.read_parquet(tmp_path / "out")
    scored = scored.iloc[scored["id"].astype(int).argsort()]
    assert np.array_equal(scored["probability"], Predictor.load(model).predict(rows)["probability"])


def test_only_the_columns_that_the_model_reads_have_the_types_of_the_schema_and_none_after_a_query(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("code,id,amount\n007,1,2\n")
    (tmp_path / "in.json").write_text(json.dumps({"code": 7, "id": "1", "amount": 2}))
    query = {"query": "SELECT id, amount, string(code) AS code FROM orders"}
    cases: list[tuple[str, str, dict[str, str], list[str]]] = [
        ("csv", "csv", {}, ["int", "string", "double"]),
        ("csv", "csv", query, ["string", "string", "string"]),
        ("json", "json", {}, ["int", "string", "double"]),
        ("json", "csv", {}, ["bigint", "string", "bigint"]),
    ]
    for stored, primary, source, types in cases:
        input_ = {"schema": "id INT, amount DOUBLE, code INT", "format": primary}
        with preparation_settings(spark):
            table = StoredTable.find(str(tmp_path / f"in.{stored}"))
            frame = table.read(spark, config_of(tmp_path, input_, **source), ["code", "amount"])
        found = {field.name: field.dataType.simpleString() for field in frame.schema}
        assert [found[column] for column in ("code", "id", "amount")] == types


def test_a_table_without_header_must_have_the_columns_of_the_schema(
    spark: SparkSession, tmp_path: Path, model: str
) -> None:
    (tmp_path / "in.csv").write_text("1,0.5,red\n")
    config = config_of(tmp_path, {"schema": SCHEMA, "options": {"header": "false"}})
    said = refusal(spark, config, tmp_path / "in.csv", model)
    assert (
        "in.csv has 3 columns without a name; expected 6, as the schema of the primary input says, or 5 without" in said
    )


@pytest.mark.parametrize(
    ("header", "labels", "expected"),
    [
        ("x,y,late,_c3", [], "x,y,late,more"),
        ("x,_c1,late,more,day", ["late"], "x,y,late,more,day"),
        ("_c0,y,_c2,late", [], "x,y,more,late"),
        ("_c0,_c1,_c2,_c3,day", ["late"], "x,y,late,more,day"),
        ("_c0,_c1,_c2,day", ["late"], "x,y,more,day"),
        ("x,y,more", ["late"], "x,y,more"),
    ],
)
def test_columns_without_a_name_get_those_of_the_schema_and_keep_their_places(
    header: str, labels: list[str], expected: str
) -> None:
    def columns(names: str) -> T.StructType:
        return T.StructType([T.StructField(name, T.StringType()) for name in names.split(",")])

    table = StoredTable("in.csv", "csv", ())
    assert table._named(columns(header), columns("x,y,late,more"), labels) == columns(expected)


@pytest.mark.parametrize(("place", "name"), [(6, "extra"), (2, "colour")])
def test_a_column_without_a_name_changes_no_score(
    spark: SparkSession, tmp_path: Path, model: str, place: int, name: str
) -> None:
    rows = raw_rows(50, 4).assign(late=0)[[*COLUMNS.split(","), "late"]]
    written = rows if name in rows else rows.assign(**{name: None})
    names = list(written.columns)
    assert names[place] == name
    written.to_csv(tmp_path / "in.csv", index=False, header=["" if one == name else one for one in names])
    schema = SCHEMA if name in rows else f"{SCHEMA}, {name} STRING"
    config = config_of(tmp_path, {"schema": schema, "options": {"enforceSchema": "true"}})
    score_table(lambda: spark, config, str(tmp_path / "in.csv"), str(tmp_path / "out"), model)
    scored = pd.read_parquet(tmp_path / "out")
    scored = scored.iloc[scored["id"].astype(int).argsort()]
    assert np.array_equal(scored["probability"], Predictor.load(model).predict(rows)["probability"])


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_columns_that_differ_by_case_alone_are_scored_beside_one_another(
    spark: SparkSession, tmp_path: Path, model: str, format_: str
) -> None:
    rows = raw_rows(20)
    both = rows.assign(AMOUNT=-1.0)
    both.to_csv(tmp_path / "in.csv", index=False) if format_ == "csv" else both.to_parquet(tmp_path / "in.parquet")
    score_table(lambda: spark, config_of(tmp_path), str(tmp_path / f"in.{format_}"), str(tmp_path / "out"), model)
    scored = pd.read_parquet(tmp_path / "out")
    scored = scored.iloc[scored["id"].astype(int).argsort()]
    assert set(scored["AMOUNT"].astype(float)) == {-1}
    assert np.array_equal(scored["probability"], Predictor.load(model).predict(rows)["probability"])
