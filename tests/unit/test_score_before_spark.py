"""What scoring refuses before it starts Spark: model, input and output, all that is wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import flow, stages
from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import DataError, InputMissingError, OutputError, PipelineError, StorageError
from pipeline.inference.stored_table import StoredTable
from tests.no_spark import NeverAsked
from tests.small_model import small_dataset, small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    dataset = small_dataset(str(tmp_path_factory.mktemp("data")), 50)
    return small_model(str(tmp_path_factory.mktemp("model")), dataset, "linear", steps=0)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineConfig:
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    (tmp_path / "in.csv").write_text("amount\n1\n")
    sections = {"features": {"amount": {"type": "numeric"}}, "label": {"column": "late"}}
    places = {"dataset": {"url": "data"}, "training": {"run_url": "run"}}
    return parse_config({**sections, **places}, str(tmp_path))


def refused(config: PipelineConfig, folder: Path, source: str, target: str, model: str) -> PipelineError:
    """The error of scoring, which leaves the folder as it was."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(PipelineError) as caught:
        stages.score_table(config, str(folder / source), str(folder / target), model=model)
    assert sorted(folder.rglob("*")) == before
    return caught.value


def test_missing_model_missing_input_and_taken_output_are_said_at_once(config: PipelineConfig, tmp_path: Path) -> None:
    error = refused(config, tmp_path, "nothing.csv", "in.csv", str(tmp_path / "no-model"))
    assert type(error) is InputMissingError
    said = ["no-model is no model", "nothing.csv is missing", "in.csv exists"]
    assert [words in offence for words, offence in zip(said, error.offences, strict=True)] == [True] * 3


def test_a_taken_output_is_73_and_one_below_a_file_is_74(config: PipelineConfig, tmp_path: Path, model: str) -> None:
    assert type(refused(config, tmp_path, "in.csv", "in.csv", model)) is OutputError
    error = refused(config, tmp_path, "in.csv", "in.csv/a/b", model)
    assert type(error) is StorageError
    assert "in.csv is a file" in str(error)


def test_a_model_with_a_file_missing_or_broken_is_refused(config: PipelineConfig, tmp_path: Path, model: str) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in Path(model).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "model.json").write_bytes(b"{}")
    error = refused(config, tmp_path, "in.csv", "out", str(copy))
    assert (type(error), "model.json is corrupt" in str(error)) == (StorageError, True)
    (copy / "model.json").unlink()
    error = refused(config, tmp_path, "in.csv", "out", str(copy))
    assert (type(error), "model.json is missing" in str(error)) == (StorageError, True)


@pytest.mark.parametrize(
    ("names", "source", "format_"),
    [
        (["a.csv"], "a.csv", "csv"),
        (["a.csv", "b.csv.gz"], "*.csv*", "csv"),
        (["t/a.jsonl", "t/_SUCCESS"], "t", "json"),
        (["t.csv/part-0"], "t.csv", "csv"),
        (["t/part-0", "t/part-1"], "t/part-*", "csv"),
        (["t/p-0.snappy.parquet", "t/_SUCCESS", "t/.p-0.crc"], "t", "parquet"),
        (["[1].csv", "1.csv"], "[1].csv", "csv"),
    ],
    ids=str,
)
def test_a_tables_format_is_told_by_its_name_or_else_by_those_of_its_files(
    names: list[str], source: str, format_: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    table = StoredTable.find(str(tmp_path / source))
    shown = [name for name in names if not Path(name).name.startswith(("_", "."))]
    expected = ["[1].csv"] if source == "[1].csv" else sorted(shown)
    assert (table.format, [str(Path(file.path).relative_to(tmp_path)) for file in table.files]) == (format_, expected)


@pytest.mark.parametrize(
    ("start", "format_"),
    [(b"PAR1", "parquet"), (b"ORC", "orc"), (b'\n{"a": 1}', "json"), (b"a,b\n", "csv"), (b"", "parquet")],
)
def test_files_without_ending_are_known_by_how_they_begin(start: bytes, format_: str, tmp_path: Path) -> None:
    (tmp_path / "part-0").write_bytes(b"")
    (tmp_path / "part-1").write_bytes(start)
    assert StoredTable.find(str(tmp_path)).format == format_


def test_a_pattern_that_fits_nothing_and_files_of_several_formats_are_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "b.json"):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputMissingError, match=r"\*.parquet is missing; expected a Parquet, ORC, JSON or CSV table"):
        StoredTable.find(str(tmp_path / "*.parquet"))
    with pytest.raises(DataError, match=r"holds csv and json files; expected one format"):
        StoredTable.find(str(tmp_path))
