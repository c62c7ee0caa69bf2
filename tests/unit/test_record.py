"""The run's record: live status, metrics that read as if nothing had happened, listeners that cannot hurt."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline import status_file, storage
from pipeline.launch.progress import ProgressDisplay, duration, narrated
from pipeline.launch.record import RunRecord
from pipeline.task import SilentReporter


def _steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _progress(record: RunRecord, step: int, loss: float = 0.5) -> None:
    record.progress(epoch=0, step=step, steps=100, loss=loss, rows_per_second=1.0)


class _Listener(SilentReporter):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def metrics(self, values: Any, step: int) -> None:
        self.heard.append((step, dict(values)))

    def resumed(self, step: int) -> None:
        self.heard.append(step)


def test_status_is_written_at_once_when_the_state_changes_and_now_and_then_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_file, "_WRITE_SECONDS", 60.0)
    record = RunRecord(str(tmp_path))
    record.state("running", world_size=2)
    _progress(record, 1)
    assert "step" not in json.loads((tmp_path / "status.json").read_text())
    record.state("finished")
    status = storage.read_json(str(tmp_path / "status.json"), "status", 1)
    assert (status["state"], status["world_size"], status["step"], status["steps"]) == ("finished", 2, 1, 100)


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    record = RunRecord(str(tmp_path))
    _progress(record, 1, loss=float("nan"))
    record.metrics({"loss": float("inf"), "accuracy": 0.5}, 1)
    record.state("failed")
    assert json.loads((tmp_path / "status.json").read_text())["loss"] is None
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"format": "metrics/1", "step": 1, "loss": None, "accuracy": 0.5}


def test_metrics_are_cut_back_to_the_checkpoint_that_training_resumes_from(tmp_path: Path) -> None:
    first = RunRecord(str(tmp_path))
    for step in (10, 20, 30):
        first.metrics({"loss": 1.0}, step)
    second = RunRecord(str(tmp_path))
    second.state("running")
    second.resumed(20)
    second.metrics({"loss": 0.5}, 30)
    assert _steps(tmp_path) == [10, 20, 30]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[2])["loss"] == 0.5


def test_an_attempt_that_starts_anew_without_a_checkpoint_voids_what_was_reported(tmp_path: Path) -> None:
    first = RunRecord(str(tmp_path))
    first.metrics({"loss": 1.0}, 10)
    listener = _Listener()
    second = RunRecord(str(tmp_path), [listener])
    second.state("running")
    _progress(second, 1)
    second.metrics({"loss": 0.9}, 10)
    assert _steps(tmp_path) == [10]
    assert listener.heard == [0, (10, {"loss": 0.9})]


def test_a_listener_that_fails_harms_neither_training_nor_other_listeners(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SilentReporter):
        def metrics(self, values: Any, step: int) -> None:
            raise ConnectionError("server is down")

    listener = _Listener()
    RunRecord(str(tmp_path), [Broken(), listener]).metrics({"loss": 1.0}, 1)
    assert listener.heard == [(1, {"loss": 1.0})]
    assert "server is down" in caplog.text


def test_a_run_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    record = RunRecord(str(tmp_path / "file" / "run"))
    record.state("running")
    record.metrics({"loss": 1.0}, 1)
    assert "a file stands where a folder is needed" in caplog.text


def test_a_corrupt_metrics_file_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff{no json")
    RunRecord(str(tmp_path)).metrics({"loss": 1.0}, 1)
    assert _steps(tmp_path) == [1]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_live_line_that_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    terminal = _Terminal()
    with ProgressDisplay("train", stream=terminal) as display:
        display.progress(epoch=1, step=50, steps=100, loss=0.25, rows_per_second=12345.0)
        line = "train: [##########          ]  50%, epoch 1, step 50, loss 0.2500, 12,345 rows/s"
        assert terminal.getvalue() == line
    assert terminal.getvalue() == f"{line}\r{' ' * len(line)}\r"


def test_a_file_gets_plain_lines_one_per_epoch_at_least() -> None:
    stream = io.StringIO()
    display = ProgressDisplay("train", stream=stream)
    for step in range(1, 11):
        display.progress(epoch=step // 6, step=step, steps=10, loss=1.0, rows_per_second=1.0)
    display.metrics({"validation_roc_auc": 0.75, "rows_per_second": 7.0}, 10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b" not in stream.getvalue()
    assert lines[2] == "train: step 10: validation roc auc 0.7500"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    display = ProgressDisplay("train", quiet=True)
    display.progress(epoch=0, step=1, steps=2, loss=1.0, rows_per_second=1.0)
    display.say("hello")
    assert capsys.readouterr() == ("", "")


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (7, 200, 3720)] == ["7 s", "3 min 20 s", "1 h 02 min"]


def test_the_log_of_a_rank_keeps_what_the_command_before_has_written(tmp_path: Path) -> None:
    for number in (1, 2):
        record = RunRecord(str(tmp_path))
        record.log(0, f"hello {number}\n")
        record.log(0, f"goodbye {number}\n")
        record.close()
    first, second = (tmp_path / "logs" / "rank-0.log").read_text().split("--- ")
    assert first == "hello 1\ngoodbye 1\n"
    assert second.partition("UTC: the next command\n")[2] == "hello 2\ngoodbye 2\n"


def test_log_lines_do_not_run_into_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := _Terminal())
    with narrated(None) as seen, ProgressDisplay("train") as display:
        assert seen
        display.update(1, 2, "half")
        logging.getLogger("pipeline.launch").info("rank 0: hello")
        display.update(2, 2, "whole")
    lines = terminal.getvalue().split("\r")
    assert lines[2] == "rank 0: hello\n"
    assert logging.getLogger("pipeline").level == logging.NOTSET
    assert not logging.getLogger("pipeline").handlers


def test_a_step_of_preparation_is_a_bar_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for stream in (_Terminal(), io.StringIO()):
        with ProgressDisplay("prepare", stream=stream) as display:
            display.tasks("cleaning and splitting", 0, 0)
            display.tasks("cleaning and splitting", 1, 4)
            bar = "prepare: [#####               ]  25%, cleaning and splitting, 1 of 4 tasks"
            live = stream.isatty()
            assert stream.getvalue() == (bar if live else "")
            display.tasks("encoding and writing", 0, 0)
            display.tasks("encoding and writing", 3, 3)
        shown = [text for text in stream.getvalue().split("\r") if text.strip()]
        full = f"prepare: [{'#' * 20}] 100%, encoding and writing, 3 of 3 tasks"
        assert shown == ([bar, full] if live else [])


def test_the_command_s_own_log_lines_begin_on_a_clean_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := _Terminal())
    log = logging.getLogger("pipeline")
    handler = logging.StreamHandler()
    log.addHandler(handler)
    try:
        with ProgressDisplay("prepare") as display:
            display.tasks("cleaning", 1, 2)
            log.warning("look out")
        assert not handler.filters
    finally:
        log.removeHandler(handler)
    assert terminal.getvalue().split("\r")[2] == "look out\n"


@pytest.mark.parametrize("progress", [None, False])
def test_elsewhere_nothing_is_shown_unasked(progress: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    with narrated(progress) as seen:
        logging.getLogger("pipeline.launch").info("hello")
    assert not seen
    assert capsys.readouterr() == ("", "")


def test_what_the_program_logs_itself_is_not_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    own = logging.StreamHandler(stream := io.StringIO())
    logging.getLogger().addHandler(own)
    try:
        with narrated(True):
            logging.getLogger("pipeline.launch").info("a step")
            logging.getLogger("pipeline.launch").warning("look out")
    finally:
        logging.getLogger().removeHandler(own)
    assert (stream.getvalue(), capsys.readouterr().err) == ("look out\n", "a step\n")
    assert logging.getLogger("pipeline").propagate


def test_asked_for_it_is_shown_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    with narrated(True) as seen:
        logging.getLogger("pipeline.launch").info("hello")
    assert seen
    assert capsys.readouterr() == ("", "hello\n")
