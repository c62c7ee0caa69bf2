"""However a command ends, RESULT, ``result.json`` and the exit code say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cli, stage_work, stages
from pipeline.config import parse_config
from pipeline.errors import (
    DataError,
    GateError,
    InputMissingError,
    InterruptedRunError,
    LostPeersError,
    OutputError,
    RankFailedError,
)
from pipeline.outcome import Outcome
from tests.small_model import small_dataset

CONFIG = """
source: {inputs: {table: {path: table.csv}}, id: a}
features: {a: {type: numeric}}
label: {column: y}
dataset: {url: data}
training: {run_url: run}
"""


def ends_with(error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `pipeline prepare` when its stage ends with an error."""

    def prepare(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(stage_work, "prepare_stage", prepare)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "_configure_logging", lambda _: None)
    (folder / "table.csv").write_text("a,y\n1,0\n")
    (folder / "pipeline.yaml").write_text(CONFIG)
    return cli.main(["prepare", str(folder / "pipeline.yaml")])


@pytest.mark.parametrize(
    ("error", "status", "code", "said"),
    [
        (DataError("one", "two"), "failed", 65, "one\ntwo"),
        (RankFailedError("rank 1 failed", detail="its traceback"), "failed", 70, "rank 1 failed"),
        (InterruptedRunError("stopped"), "interrupted", 75, "stopped"),
        (LostPeersError("rank 0 is gone"), "interrupted", 75, "rank 0 is gone"),
        (KeyboardInterrupt(), "interrupted", 75, "interrupted; run the same command again to resume"),
        (ModuleNotFoundError("No module named 'petastorm'", name="petastorm"), "failed", 69, "package petastorm is "),
        (LookupError("unforeseen"), "failed", 70, "LookupError: unforeseen; this is not expected"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_file_result_and_exit_code_agree_on_every_error(
    error: BaseException,
    status: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends_with(error, tmp_path, monkeypatch) == code
    output = capsys.readouterr()
    result = json.loads(output.out.splitlines()[-1].removeprefix("RESULT "))
    file = json.loads((tmp_path / "run" / "result.json").read_text())
    assert file.pop("format") == "result/1"
    assert file == result
    assert (result["stage"], result["status"], result["code"]) == ("prepare", status, code)
    assert result["error"].startswith(said)
    assert output.err.startswith(f"error[{code}]: ")


def command(folder: Path, last: str) -> Outcome:
    return Outcome(parse_config({**yaml.safe_load(CONFIG), "training": {"run_url": str(folder / "run")}}), last)


def kept(folder: Path) -> dict[str, Any]:
    """What ``result.json`` says."""
    value: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return value


def finish(folder: Path, content_id: str) -> dict[str, Any]:
    """Leave what a whole run leaves."""
    outcome = command(folder, "run")
    with outcome.written() as values:
        values["dataset"] = {"content_id": content_id}
        values |= {"metrics": {"roc_auc": 0.75}, "model": {"version": "1"}}
        values["seconds"] |= {"prepare": 40.0, "train": 30.0}
    return kept(folder)


def test_a_command_with_nothing_to_do_leaves_what_the_run_has_reached(tmp_path: Path) -> None:
    before = finish(tmp_path, "a")
    outcome = command(tmp_path, "prepare")
    with outcome.written() as values:
        values["dataset"] = {"content_id": "a"}
        values["seconds"]["prepare"] = 0.1
        outcome.reused("prepare")
    assert kept(tmp_path) == {**before, "stage": "prepare", "reused": ["prepare"]}
    assert "metrics" not in values, "RESULT is of the command"


def test_what_was_reached_with_other_rows_is_not_kept(tmp_path: Path) -> None:
    finish(tmp_path, "a")
    outcome = command(tmp_path, "prepare")
    with outcome.written() as values:
        values["dataset"] = {"content_id": "b"}
        values["seconds"]["prepare"] = 50.0
    assert not kept(tmp_path).keys() & {"metrics", "model"}
    assert kept(tmp_path)["seconds"] == {"prepare": 50.0}


def test_a_model_that_now_fails_its_gate_is_not_shown_as_registered(tmp_path: Path) -> None:
    finish(tmp_path, "a")
    outcome = command(tmp_path, "evaluate")
    outcome.values |= {"dataset": {"content_id": "a"}, "metrics": {"roc_auc": 0.75}}
    outcome.values |= GateError("gate.roc_auc").outcome
    assert not outcome.ends_as_before(), "so that the report is written again"
    with pytest.raises(GateError), outcome.written():
        raise GateError("gate.roc_auc")
    assert "model" not in kept(tmp_path)
    assert kept(tmp_path)["seconds"]["train"] == 30.0


def test_a_command_that_finds_another_writer_leaves_the_file_to_that_one(tmp_path: Path) -> None:
    before = finish(tmp_path, "a")
    with pytest.raises(OutputError), command(tmp_path, "train").written():
        raise OutputError("held")
    assert kept(tmp_path) == before


@pytest.mark.parametrize("last", ["train", "evaluate"])
def test_a_stage_without_dataset_is_66_and_makes_no_run_folder(tmp_path: Path, last: str) -> None:
    config = {**yaml.safe_load(CONFIG), "dataset": {"url": str(tmp_path / "data")}}
    with pytest.raises(InputMissingError, match="holds no published dataset"):
        stages.run_stage(parse_config({**config, "training": {"run_url": str(tmp_path / "run")}}), last)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_without_a_finished_training_is_66_and_makes_no_run_folder(tmp_path: Path) -> None:
    dataset = small_dataset(str(tmp_path / "data"), 50)
    config = {**yaml.safe_load(CONFIG), "dataset": {"url": dataset.url}, "training": {"run_url": str(tmp_path / "run")}}
    with pytest.raises(InputMissingError, match="holds no finished training of this configuration"):
        stages.run_stage(parse_config(config), "evaluate")
    assert not (tmp_path / "run").exists()


def test_a_report_of_what_is_no_run_is_66_and_writes_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "data")
    small_dataset(url, 50)
    before = set((tmp_path / "data").iterdir())
    for folder in (url, str(tmp_path / "nothing")):
        with pytest.raises(InputMissingError, match="is no run folder"):
            stages.write_report(folder)
    assert set((tmp_path / "data").iterdir()) == before
    assert not (tmp_path / "nothing").exists()
