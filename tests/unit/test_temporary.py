"""Temporary folders of several processes in one workspace, and the environment while others read it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.launch.environment import environment
from pipeline.launch.temporary import temporary_folder


def test_a_process_that_waited_for_a_lock_file_that_is_gone_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, flock, base = tmp_path / ".tmp" / "sweep.lock", fcntl.flock, tmp_path / ".tmp"
    others = [True]

    def let_another_process_end_first(file: Any, how: int) -> None:
        if others:
            others.pop()
            lock.unlink()
            base.rmdir()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", let_another_process_end_first)
    with temporary_folder(str(tmp_path)) as folder:
        assert folder.parent == base
        assert sorted(path.name for path in base.iterdir()) == sorted([folder.name, "sweep.lock"])
    assert not base.exists()


def test_only_what_a_block_has_changed_is_put_back_so_that_threads_always_find_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, deleted = type(os.environ), []
    delete = kind.__delitem__
    monkeypatch.setenv("TEST_CHANGED", "before")
    monkeypatch.setenv("TEST_REMOVED", "before")

    def note(variables: Any, name: str) -> None:
        deleted.append(name)
        delete(variables, name)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "__delitem__", note)
        with environment({"TEST_CHANGED": "inside", "TEST_SET": "inside"}):
            os.environ["TEST_ADDED"] = "inside"
            os.environ.pop("TEST_REMOVED")
            deleted.clear()
    assert sorted(deleted) == ["TEST_ADDED", "TEST_SET"]
    assert (os.environ["TEST_CHANGED"], os.environ["TEST_REMOVED"]) == ("before", "before")
