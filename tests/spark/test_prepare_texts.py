"""Texts of CSV and JSON files are published as they were written: none is cut at a line break or has lost letters."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipeline.config import PipelineConfig
from pipeline.errors import DataError, InputMissingError
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.open_quotes import FILE, LINE, open_lines
from pipeline.preparation.prepare import prepare_dataset
from pipeline.preparation.preview import preview
from pipeline.preparation.read import read_inputs, refuse_cut_texts, take_census
from pipeline.preparation.session import preparation_settings
from pipeline.preparation.text_files import DEFAULTS, option
from tests.spark.datasets import config_of, read_all

ROWS = 120


def notes(**sections: Any) -> pd.DataFrame:
    numbers = pd.RangeIndex(ROWS)
    return pd.DataFrame({"id": numbers, "x": numbers / 7, "label": numbers // 2 % 2, "note": "plain", **sections})


def made(folder: Path, input_: dict[str, Any] | None = None, **source: Any) -> PipelineConfig:
    inputs = {"notes": {"path": str(folder / "in"), "schema": "id INT, x DOUBLE, label INT, note STRING"}}
    inputs["notes"].update(input_ or {})
    return config_of(
        folder,
        source={"inputs": inputs, "id": "id", **source},
        features={"x": {"type": "numeric"}},
        label={"column": "label"},
        dataset__keep=["note"],
    )


def written(folder: Path, rows: pd.DataFrame) -> PipelineConfig:
    (folder / "in").mkdir()
    rows.to_csv(folder / "in" / "a.csv", index=False)
    return made(folder)


@pytest.mark.parametrize("look", [preview, prepare_dataset])
def test_a_text_with_a_line_break_is_refused_with_its_line_and_published_whole_when_the_options_say_so(
    spark: SparkSession, tmp_path: Path, look: Any
) -> None:
    texts = ["line one\nline two" if row in (3, 70) else 'say ""hi"", "\'' for row in range(ROWS)]
    config = written(tmp_path, notes(note=texts))
    with pytest.raises(DataError) as caught:
        look(spark, config)
    (offence,) = caught.value.offences
    first = "source.inputs.notes: 2 of its lines leave a quoted text open, such as '3,0.42857142857142855,1,"
    assert offence.startswith(first)
    assert f" of {tmp_path}/in/a.csv; expected the closing quote in the same line" in offence
    with pytest.raises(DataError, match=rf"such as one of {tmp_path}/in/a\.csv"):
        look(spark, made(tmp_path, sensitive=["note"], query="SELECT * FROM notes"))
    dataset = prepare_dataset(spark, made(tmp_path, {"options": {"multiLine": "true"}}))
    assert read_all(dataset).set_index("id")["note"].to_dict() == dict(enumerate(texts))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sep": "|"},
        {"delimiter": "\\t"},
        {"SEP": "||"},
        {"quote": "'", "escape": "'"},
        {"escape": "\\"},
        {"ignoreLeadingWhiteSpace": "true"},
        {"comment": "#"},
    ],
    ids=str,
)
def test_a_line_is_open_where_a_reader_of_several_lines_goes_on_to_the_next(
    spark: SparkSession, tmp_path: Path, options: dict[str, str]
) -> None:
    signs = ["a", *([" "] if "ignoreLeadingWhiteSpace" in options else []), *(["#"] if "comment" in options else [])]
    signs += [option(options, "sep", option(options, "delimiter", ",")).replace("\\t", "\t")] * 2
    signs += [option(options, "quote", '"')] * 4 + ['a\\"'] * ("escape" in options and "quote" not in options)
    random = Random(7)
    lines = list(dict.fromkeys("".join(random.choices(signs, k=random.randint(1, 9))) for _ in range(400)))
    for number, line in enumerate(lines):
        (tmp_path / f"{number:03}.csv").write_text(f"{line}\nend\n")
    reader = spark.read.options(**{**DEFAULTS["csv"], **options, "header": "false", "multiLine": "true"})
    rows = reader.schema(", ".join(f"c{number} string" for number in range(9))).csv(str(tmp_path))
    ended = rows.where("c0 = 'end'").select("_metadata.file_name").collect()
    goes_on = set(lines) - {lines[int(name[:3])] for (name,) in ended}
    found = open_lines(spark.createDataFrame([(line, "f") for line in lines], f"{LINE} string, {FILE} string"), options)
    assert found is not None
    assert {row[0] for row in found.collect()} == goes_on
    assert 40 < len(goes_on) < len(lines) - 40


def test_lines_of_partitions_that_the_condition_leaves_out_are_not_looked_at(
    spark: SparkSession, tmp_path: Path
) -> None:
    for day, note in ((1, '"open'), (2, "plain")):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text(f"id,x,label,note\n1,2,0,{note}\n")
    schema = "id INT, x DOUBLE, label INT, note STRING, day INT"
    for where, is_refused in ((None, True), ("day >= 1 AND x > 0", True), ("(x > 0 AND day = 2) AND id > 0", False)):
        config = made(tmp_path, {"schema": schema}, **({"where": where} if where else {}))
        refused = pytest.raises(DataError, match=r"day=1/a\.csv") if is_refused else contextlib.nullcontext()
        with preparation_settings(spark), refused:
            refuse_cut_texts(spark, config, list_inputs(config), "notes")


def test_without_quoted_texts_there_are_no_open_ones(spark: SparkSession, tmp_path: Path) -> None:
    config = written(tmp_path, notes(note='"Yes'))
    (tmp_path / "in" / "a.csv").write_text((tmp_path / "in" / "a.csv").read_text().replace('"""Yes"', '"Yes'))
    with pytest.raises(DataError, match="120 of its lines leave a quoted text open"):
        prepare_dataset(spark, config)
    dataset = prepare_dataset(spark, made(tmp_path, {"options": {"quote": ""}}))
    assert set(read_all(dataset)["note"]) == {'"Yes'}


@pytest.mark.parametrize("look", [preview, prepare_dataset])
def test_texts_in_another_encoding_are_refused_by_their_column_until_the_options_name_it(
    spark: SparkSession, tmp_path: Path, look: Any
) -> None:
    texts = ["grün" if row % 40 == 0 else "plain" for row in range(ROWS)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(notes(note=texts).to_csv(index=False).encode("latin-1"))
    with pytest.raises(DataError, match=r"^source\.inputs\.notes: column note .* in 3 rows; expected UTF-8.*encoding"):
        look(spark, made(tmp_path))
    dataset = prepare_dataset(spark, made(tmp_path, {"options": {"encoding": "ISO-8859-1"}}))
    assert read_all(dataset).set_index("id")["note"].to_dict() == dict(enumerate(texts))


def test_names_of_columns_in_another_encoding_are_refused_until_the_options_name_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(notes(größe=1).to_csv(index=False).encode("latin-1"))
    with pytest.raises(DataError, match=r"^source\.inputs\.notes: columns gr\ufffd\ufffde have bytes in their names"):
        preview(spark, made(tmp_path, {"schema": None}))
    seen = preview(spark, made(tmp_path, {"schema": None, "options": {"encoding": "ISO-8859-1"}}))
    assert "größe" in seen["columns"]


def test_utf_16_is_read_as_one_text_and_refused_line_by_line(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(notes(note="grün").to_csv(index=False).encode("utf-16"))
    with pytest.raises(DataError, match=r"multiLine: true if it is UTF-16"):
        prepare_dataset(spark, made(tmp_path, {"options": {"encoding": "UTF-16"}, "schema": None}))
    options = {"encoding": "UTF-16", "multiLine": "true"}
    dataset = prepare_dataset(spark, made(tmp_path, {"options": options}))
    assert set(read_all(dataset)["note"]) == {"grün"}


def test_a_replacement_character_of_the_file_itself_is_taken_where_it_is_said_to_be_utf_8(
    spark: SparkSession, tmp_path: Path
) -> None:
    config = written(tmp_path, notes(note="gr\ufffdn"))
    with pytest.raises(DataError, match="column note and maybe others have bytes that are no text in 120 rows"):
        prepare_dataset(spark, config)
    dataset = prepare_dataset(spark, made(tmp_path, {"options": {"encoding": "utf-8"}}))
    assert set(read_all(dataset)["note"]) == {"gr\ufffdn"}


def test_json_in_another_encoding_has_faults(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lines = ['{"id": 1, "note": "grün"}', '{"id": 2, "note": "plain"}']
    (tmp_path / "in" / "a.json").write_bytes("\n".join(lines).encode("latin-1"))
    config = made(tmp_path, {"format": "json"})
    with preparation_settings(spark):
        frames = read_inputs(spark, config, list_inputs(config))
        census = take_census(frames, config, "notes", frames)["notes"]
    assert (census.rows, census.faults) == (1, 1)


@pytest.mark.parametrize(
    ("format_", "text", "said"),
    [
        ("csv", "", "its files are empty; expected a line with the names of the columns"),
        ("json", '[\n {\n  "id": 1\n }\n]', r"say options: \{multiLine: true\}"),
    ],
)
def test_files_that_tell_no_columns_are_missing_rows(
    spark: SparkSession, tmp_path: Path, format_: str, text: str, said: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"a.{format_}").write_text(text)
    config = made(tmp_path, {"format": format_, "schema": None})
    with pytest.raises(InputMissingError, match=rf"^source\.inputs\.notes: .*{said}"):
        read_inputs(spark, config, list_inputs(config))
