"""``status.json`` tells the stage truly, and "finished" only when the whole command is over."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import status_file, storage
from pipeline.errors import DataError, GateError, OutputError
from pipeline.lease import Lease
from pipeline.status import read_status
from pipeline.status_file import StatusFile

_HOLDS = """
import sys
from pipeline.lease import Lease
from pipeline.status_file import StatusFile
with Lease(sys.argv[1]), StatusFile(sys.argv[1]).stage("train"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def _values(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "status.json").read_text()))


def _said(folder: Path) -> tuple[str, str]:
    return _values(folder)["stage"], _values(folder)["state"]


def test_stages_follow_each_other_and_the_command_is_finished_at_its_end(tmp_path: Path) -> None:
    status = StatusFile(str(tmp_path))
    seen = []
    with status.command("run"):
        for name in ("prepare", "train", "evaluate"):
            with status.stage(name):
                seen.append(_said(tmp_path))
            assert _said(tmp_path)[1] == "running"
    assert seen == [("prepare", "running"), ("train", "running"), ("evaluate", "running")]
    assert _said(tmp_path) == ("run", "finished")


def test_a_stage_by_itself_is_a_command(tmp_path: Path) -> None:
    with StatusFile(str(tmp_path)).stage("train", "starting"):
        assert _said(tmp_path) == ("train", "starting")
    assert _said(tmp_path) == ("train", "finished")


def test_the_stage_that_fails_is_named_with_its_error_though_others_follow_it(tmp_path: Path) -> None:
    status = StatusFile(str(tmp_path))
    with pytest.raises(GateError), status.command("run"):  # noqa: PT012
        try:
            with status.stage("gate"):
                raise GateError("roc_auc is 0.5; expected 0.6")
        except GateError:
            assert _said(tmp_path) == ("gate", "failed")
            with status.stage("report"):
                assert _said(tmp_path) == ("report", "running")
                assert "error" not in _values(tmp_path)
            raise
    assert _said(tmp_path) == ("gate", "failed")
    assert "  error: roc_auc is 0.5; expected 0.6" in read_status(str(tmp_path)).lines()


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (DataError("no rows"), "failed", "no rows"),
        (KeyboardInterrupt(), "interrupted", "interrupted; run the same command again to resume"),
        (LookupError("odd"), "failed", "LookupError: odd"),
    ],
)
def test_an_interrupt_is_no_failure(tmp_path: Path, error: BaseException, state: str, said: str) -> None:
    status = StatusFile(str(tmp_path))
    with pytest.raises(type(error)), status.command("run"), status.stage("prepare"):
        raise error
    assert _said(tmp_path) == ("prepare", state)
    assert _values(tmp_path)["error"].startswith(said)


def test_the_step_of_a_stage_is_shown_and_gone_with_it(tmp_path: Path) -> None:
    status = StatusFile(str(tmp_path))
    with status.command("run"):
        with status.stage("prepare"):
            status.update(at_once=True, doing="encoding and writing", done=3, total=8)
            assert read_status(str(tmp_path)).lines()[1] == "  encoding and writing, 3 of 8 tasks"
        with status.stage("train"):
            assert len(read_status(str(tmp_path)).lines()) == 1


def test_a_long_stage_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_file, "_HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(status_file, "_WRITE_SECONDS", 0.0)
    with StatusFile(str(tmp_path)).stage("evaluate"):
        first = _values(tmp_path)["updated"]
        deadline = time.monotonic() + 20
        while _values(tmp_path)["updated"] == first:
            assert time.monotonic() < deadline, "nothing was written"


def test_a_store_of_slow_writes_is_not_written_to_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def write_slowly(*_: Any) -> None:
        nonlocal now
        now += 5.0

    monkeypatch.setattr(status_file, "time", SimpleNamespace(time=time.time, monotonic=lambda: now))
    monkeypatch.setattr(storage, "write_json", write_slowly)
    status = StatusFile(str(tmp_path))
    assert status.update(done=1)
    assert not status.update(done=2)
    now += 1.0
    assert status.update(done=3)


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with StatusFile(str(tmp_path / "file" / "run")).stage("prepare"):
        pass
    [warning] = [record.getMessage() for record in caplog.records]
    assert "a file stands where a folder is needed" in warning


def test_a_command_that_is_refused_leaves_the_status_to_the_one_that_holds_the_folder(tmp_path: Path) -> None:
    url = str(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", _HOLDS, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    refused, next_one = StatusFile(url), StatusFile(url)
    with pytest.raises(OutputError), refused.stage("train", "starting"), Lease(url):
        pass
    assert _said(tmp_path) == ("train", "running")
    holder.communicate(b"end\n")
    with next_one.stage("train", "starting"), Lease(url):
        assert _said(tmp_path) == ("train", "finished")
        next_one.owned()
        assert _said(tmp_path) == ("train", "starting")
    assert holder.returncode == 0
