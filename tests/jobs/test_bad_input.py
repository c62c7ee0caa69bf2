"""Bad input: its exit code, one line per offence, RESULT, and nothing published."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.conftest import read_result

Arguments = Callable[..., list[str]]


@pytest.fixture
def fails(arguments: Arguments, run_command, tmp_path: Path) -> Callable[..., list[str]]:
    """Run `prepare` with overrides; gives the error lines after checking all that errors have in common."""

    def run(code: int, *overrides: str, workspace: Path = tmp_path / "workspace") -> list[str]:
        ended = run_command(*arguments("prepare", workspace, *overrides))
        assert ended.returncode == code, ended.stderr[-3000:]
        errors = [line for line in ended.stderr.splitlines() if line.startswith("error[")]
        assert errors
        assert all(line.startswith(f"error[{code}]: ") for line in errors)
        assert "Traceback" not in ended.stderr
        result = read_result(ended.stdout)
        assert result["code"] == code
        assert result["error"]
        assert not (workspace / "flights" / "_commits").exists()
        return errors

    return run


def test_unknown_key_wrong_type_and_bad_bound_are_all_named(fails) -> None:
    errors = fails(78, "training.sed=1", "training.seed=soon", "split.test=1.5")
    assert len(errors) == 3
    for name in ("training.sed", "training.seed", "split.test"):
        assert any(name in error for error in errors), name


def test_an_input_that_does_not_exist_is_66(fails) -> None:
    (error,) = fails(66, "source.inputs.planes.path=/nowhere/planes.csv")
    assert "/nowhere/planes.csv" in error


def test_columns_that_the_query_does_not_give_are_listed_with_those_it_gives(fails) -> None:
    errors = fails(65, "features.wings={type: numeric}", "features.beak={type: categorical}")
    text = "\n".join(errors)
    assert "wings" in text
    assert "beak" in text
    assert "carrier" in text, "what is available is listed"


def test_broken_rows_beyond_the_limit_are_65(fails, flights_data: Path, tmp_path: Path) -> None:
    lines = (flights_data / "flights.csv").read_text().splitlines()
    broken = [line + ",1,2" if number % 5 == 1 else line for number, line in enumerate(lines)]
    broken[0] = lines[0]
    (tmp_path / "broken.csv").write_text("\n".join(broken) + "\n")
    errors = fails(65, f"source.inputs.flights.path={tmp_path / 'broken.csv'}")
    assert "rejected" in errors[0]
    assert "limit" in errors[0] or "0.05" in errors[0]


def test_an_output_below_a_regular_file_is_74(fails, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (error,) = fails(74, f"dataset.url={tmp_path / 'file' / 'flights'}")
    assert "file" in error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_74_and_publishes_nothing(fails, small_disk: Path) -> None:
    errors = fails(74, f"dataset.url={small_disk / 'flights'}")
    assert "full" in errors[0]
    assert not (small_disk / "flights" / "_commits").exists()


def test_a_missing_configuration_is_66_and_a_wrong_command_line_2(run_command) -> None:
    ended = run_command("run", "/nowhere/pipeline.yaml")
    assert (ended.returncode, read_result(ended.stdout)["code"]) == (66, 66)
    ended = run_command("run")
    assert (ended.returncode, read_result(ended.stdout)["code"]) == (2, 2)
    assert ended.stderr.startswith("error[2]: ")


def test_json_logs_are_one_object_a_line(run_command) -> None:
    ended = run_command("run", "/nowhere/pipeline.yaml", "--log-format", "json")
    for line in ended.stderr.splitlines():
        assert json.loads(line)["message"]
