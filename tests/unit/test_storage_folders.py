"""Folders as wholes: moved all or not at all, and removed whatever happens to them meanwhile."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import storage
from pipeline.errors import StorageError


def test_a_folder_with_brackets_in_its_name_is_moved_and_no_other(folder: str) -> None:
    for name in ("a[1]/x", "a[1]/deep/y*", "a1/x"):
        storage.write_bytes(storage.join(folder, name), name.encode())
    storage.move_folder(storage.join(folder, "a[1]"), storage.join(folder, "b[2]"))
    assert storage.list_names(folder) == ["a1", "b[2]"]
    assert storage.read_bytes(storage.join(folder, "b[2]/deep/y*")) == b"a[1]/deep/y*"
    with pytest.raises(StorageError):
        storage.move_folder(storage.join(folder, "a[1]"), storage.join(folder, "c"))


def _table(url: str, parts: int = 3) -> set[str]:
    """Write the files of a table; their names."""
    names = {"_SUCCESS", "_metadata", "k=1/_part", *(f"part-{number}" for number in range(parts))}
    for name in names:
        storage.write_bytes(storage.join(url, name), name.encode())
    return names


def _files(url: str) -> set[str]:
    filesystem, path = storage.filesystem(url)
    return {file.removeprefix(path).lstrip("/") for file in filesystem.find(path)}


@pytest.mark.parametrize("broken", ["part-7", "_SUCCESS"])
def test_a_copy_has_its_marks_last_and_leaves_nothing_if_it_fails(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    source, target = "memory://bucket/a", "memory://bucket/b"
    names, copy = _table(source, 40), type(memory).cp_file

    def fail(self: Any, source: str, target_: str) -> None:
        name = posixpath.basename(source)
        if name.startswith("_"):
            assert {name for name in names if not posixpath.basename(name).startswith("_")} <= _files(target)
        if name == broken:
            raise OSError(errno.EIO, "I/O error")
        copy(self, source, target_)

    monkeypatch.setattr(type(memory), "cp_file", fail)
    with pytest.raises(StorageError, match="I/O error"):
        storage.move_folder(source, target)
    assert not storage.exists(target)
    assert _files(source) == names
    monkeypatch.undo()
    storage.move_folder(source, target)
    assert (_files(source), _files(target)) == (set(), names)
    memory.store.clear()


def test_a_folder_is_not_moved_into_another_one(folder: str) -> None:
    source, target = storage.join(folder, "a"), storage.join(folder, "b")
    names = _table(source)
    storage.write_bytes(storage.join(target, "part-of-another"), b"")
    with pytest.raises(StorageError, match="b is not usable: Directory not empty"):
        storage.move_folder(source, target)
    assert (_files(source), _files(target)) == (names, {"part-of-another"})


def _at_each_removal(monkeypatch: pytest.MonkeyPatch, then: Callable[[Callable[[], None]], None]) -> None:
    """Wherever a file is removed, ``then`` is called with its removal."""

    def replaced(remove: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: then(lambda: remove(*arguments))

    for owner, name in ((os, "unlink"), (type(fsspec.filesystem("memory")), "rm_file")):
        monkeypatch.setattr(owner, name, replaced(getattr(owner, name)))


def test_a_folder_is_removed_though_its_files_go_meanwhile(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = storage.join(folder, "a")
    _table(url)

    def come_late(remove: Callable[[], None]) -> None:
        remove()
        remove()

    _at_each_removal(monkeypatch, come_late)
    storage.remove(url)
    assert not storage.exists(url)


def test_a_folder_that_gets_a_file_while_it_is_removed_is_said_to_be_there(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = storage.join(folder, "a")
    _table(url)
    filesystem, path = storage.filesystem(url)

    def write_meanwhile(remove: Callable[[], None]) -> None:
        remove()
        filesystem.pipe_file(f"{path}/late", b"")

    _at_each_removal(monkeypatch, write_meanwhile)
    with pytest.raises(StorageError, match="Directory not empty"):
        storage.remove(url)


def test_only_an_empty_folder_is_removed_as_one(folder: str) -> None:
    url = storage.join(folder, "a")
    storage.remove_if_empty(url)
    filesystem, path = storage.filesystem(url)
    filesystem.makedirs(path)
    storage.write_bytes(storage.join(url, "file"), b"")
    storage.remove_if_empty(url)
    assert storage.exists(storage.join(url, "file"))
    filesystem.rm_file(f"{path}/file")
    storage.remove_if_empty(url)
    assert not storage.exists(url)


def test_removing_a_folder_does_not_follow_links_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    storage.remove(str(tmp_path / "inside"))
    assert (tmp_path / "outside" / "kept").exists()
    assert not (tmp_path / "inside").exists()
