"""However a command ends, RESULT, ``result.json`` and the exit code say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, flow
from pipeline.errors import DataError, InterruptedRunError, LostPeersError, RankFailedError

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

    monkeypatch.setattr(flow, "prepare_stage", prepare)
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
