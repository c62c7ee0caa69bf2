"""What ranks print is kept as a terminal would show it, at the price of its length, and cannot end a training."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.launch import output
from pipeline.launch.output import RankLogs, _Lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(output, "time", clock)
    return clock


def _write(lines: io.TextIOBase, *texts: str) -> None:
    for text in texts:
        lines.write(text)


def test_complete_lines_are_sent_whoever_cuts_them_into_pieces(clock: SimpleNamespace) -> None:
    sent: list[str] = []
    _write(_Lines(sent.append), "one", " line\ntwo\nthr", "ee\r", "\n", "four\r\n", "rest")
    assert "".join(sent) == "one line\ntwo\nthree\nfour\n"


def test_of_a_progress_bar_its_end_is_kept_and_what_it_shows_now_and_then(clock: SimpleNamespace) -> None:
    sent: list[str] = []
    lines = _Lines(sent.append)
    for step in range(1, 81):
        clock.now += 0.125
        _write(lines, f"\r{step:3d}/80 [###  ]")
    _write(lines, "\n", "after it\n")
    shown = "".join(sent).splitlines()
    assert shown[-2:] == [" 80/80 [###  ]", "after it"]
    assert [line[:3].strip() for line in shown[:-2]] == ["16", "32", "48", "64", "80"]


def test_carriage_returns_behind_the_text_write_over_it_too(clock: SimpleNamespace) -> None:
    sent: list[str] = []
    _write(_Lines(sent.append), "1%\r", "2%\r", "3%\r", "\n")
    assert sent == ["3%\n"]


@pytest.mark.parametrize("piece", ["\r 12.3it/s, loss=0.123456", "no end of it"])
def test_without_an_end_of_line_little_is_held_back(clock: SimpleNamespace, piece: str) -> None:
    lines = _Lines(lambda _: None)
    for _ in range(10_000):
        lines.write(piece)
        assert len(lines._line) <= 10_000


def test_a_line_that_is_sent_in_parts_gets_no_ends_of_its_own(clock: SimpleNamespace) -> None:
    sent: list[str] = []
    _write(_Lines(sent.append), "x" * 10_001, "y\n")
    assert sent == ["x" * 10_001, "y\n"]


def test_texts_that_are_no_utf_8_are_kept_as_far_as_they_are(tmp_path: Path) -> None:
    logs = RankLogs(str(tmp_path))
    logs.add(0, "a file \udc80\n")
    logs.write()
    assert (tmp_path / "rank-0.log").read_text() == "a file ?\n"


def test_what_a_rank_logs_arrives_too() -> None:
    sent: list[str] = []
    with output.output_sent(sent.append):
        logging.getLogger("pipeline.tests").info("a message")
    assert "INFO pipeline.tests: a message\n" in "".join(sent)
