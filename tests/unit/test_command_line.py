"""The command line: what it explains, and what it refuses before it does anything."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import __version__, cli

CONFIG = "{features: {a: {type: numeric}}, label: {column: y}, dataset: {url: data}, training: {run_url: run}}"


@pytest.fixture(autouse=True)
def _signals_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "_configure_logging", lambda _: None)


def test_every_argument_of_every_verb_is_explained() -> None:
    (verbs,) = [action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)]
    silent = [(name, each.dest) for name, verb in verbs.choices.items() for each in verb._actions if not each.help]
    assert silent == []


def test_python_m_pipeline_is_the_command_and_knows_its_version() -> None:
    ended = subprocess.run([sys.executable, "-m", "pipeline", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"pipeline {__version__}\n"


@pytest.mark.parametrize("keep", ["0", "-1"])
def test_gc_that_would_keep_nothing_is_a_usage_error(
    tmp_path: Path, keep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    assert cli.main(["gc", str(tmp_path / "pipeline.yaml"), f"--keep={keep}"]) == 2
    assert f"--keep is {keep}; expected at least 1" in capsys.readouterr().err


def test_gc_of_no_dataset_is_66_and_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    assert cli.main(["gc", str(tmp_path / "pipeline.yaml")]) == 66
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]


def test_the_schema_is_of_no_file() -> None:
    assert cli.main(["config", "schema", "pipeline.yaml"]) == 2


def test_an_unknown_option_points_to_the_help_of_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "run", "--depe"]) == 2
    assert "--depe is not known; see `pipeline status --help`" in capsys.readouterr().err


def test_serve_lays_overrides_over_its_configuration_and_refuses_them_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    assert cli.main(["serve", str(tmp_path / "pipeline.yaml"), "--set", "serving.port=99999"]) == 78
    assert "99999" in capsys.readouterr().err
    assert cli.main(["serve", str(tmp_path), "--target", "cluster"]) == 2
    assert "is no configuration" in capsys.readouterr().err


def test_serving_a_configuration_before_training_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    assert cli.main(["serve", str(tmp_path / "pipeline.yaml")]) == 66
    assert "holds no model; expected a finished training; run `pipeline run` first" in capsys.readouterr().err


def test_a_registered_model_before_its_training_is_66_and_makes_no_mlflow_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.yaml").write_text(CONFIG[:-1] + ", tracking: {registered_model: late}}")
    assert cli.main(["serve", str(tmp_path / "pipeline.yaml")]) == 66
    assert "late@champion is not registered" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]
