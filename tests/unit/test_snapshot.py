"""What is known of tables and databases is compared when they have been read."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pipeline.errors import InterruptedRunError, StorageError
from pipeline.preparation import snapshot
from pipeline.preparation.inputs import InputFile


def test_files_of_a_table_are_asked_for_together_and_those_that_are_gone_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = threading.Barrier(3, timeout=10)

    def described(path: str) -> InputFile:
        together.wait()
        if path == "b":
            raise StorageError("b is missing")
        return InputFile(path, 1, "now")

    monkeypatch.setattr(snapshot, "described", described)
    then = {"sales": tuple(InputFile(path, 1, "now") for path in "abc")}
    assert snapshot.files_now(then) == {"sales": (then["sales"][0], then["sales"][2])}


def test_inputs_with_other_rows_than_before_are_all_named_with_75() -> None:
    def counted(rows: int, contents: int) -> snapshot.Counted:
        return SimpleNamespace(rows=rows, contents=contents)

    then = {"a": counted(5, 1), "b": counted(5, 2), "c": counted(5, 3), "files": counted(1, 1)}
    snapshot.check_contents(then, {"a": counted(5, 1)})
    with pytest.raises(InterruptedRunError, match="input a: its rows changed") as caught:
        snapshot.check_contents(then, {"a": counted(6, 1), "b": counted(5, 2), "c": counted(5, 4)})
    assert caught.value.code == 75
    assert "input c" in str(caught.value)
    assert "input b" not in str(caught.value)
