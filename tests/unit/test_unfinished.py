"""A table is made by one writer, and is there as a whole or not at all, on local disks as on object stores."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest

from pipeline import storage
from pipeline.errors import InterruptedRunError, OutputError, StorageError
from pipeline.inference.unfinished import unfinished_folder
from pipeline.lease import Lease

_NAMES = ["_SUCCESS", "part-0", "part-1"]


@pytest.fixture
def target(folder: str) -> str:
    return storage.join(folder, "table [x]")


def _write(table: str) -> None:
    for name in _NAMES:
        storage.write_bytes(storage.join(table, name), b"rows")


def test_what_was_written_is_there_when_it_is_complete_and_nothing_beside_it(folder: str, target: str) -> None:
    with unfinished_folder(target + "/") as table:
        _write(table)
        assert not storage.exists(target)
    assert storage.list_names(target) == _NAMES
    assert storage.list_names(folder) == ["table [x]"]


def test_of_an_error_nothing_is_left(folder: str, target: str) -> None:
    def fail() -> None:
        with unfinished_folder(target) as table:
            _write(table)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert storage.list_names(folder) == []


def test_a_second_writer_is_refused_and_takes_nothing_from_the_first(folder: str, target: str) -> None:
    with unfinished_folder(target) as table:
        _write(table)
        with pytest.raises(OutputError, match="held by process"):
            unfinished_folder(target).__enter__()
    assert storage.list_names(target) == _NAMES
    assert storage.list_names(folder) == ["table [x]"]


def test_what_a_dead_writer_left_goes_and_is_no_part_of_the_table(target: str) -> None:
    left = storage.join(f"{target}.unfinished", "table-0123456789ab")
    storage.write_bytes(storage.join(left, "part-of-the-dead"), b"rows")
    dead = Lease(f"{target}.unfinished")
    dead._me["started"] = "long ago"
    storage.put_if_absent(storage.join(f"{target}.unfinished", "lease.json"), dead._content())
    with unfinished_folder(target) as table:
        assert not storage.exists(left)
        _write(table)
        storage.write_bytes(storage.join(left, "late-part-of-the-dead"), b"rows")
    assert storage.list_names(target) == _NAMES


@pytest.mark.parametrize("meanwhile", ["before it begins", "while it works"])
def test_a_table_that_somebody_else_made_stays_as_it_is(folder: str, target: str, meanwhile: str) -> None:
    def write_too() -> None:
        if meanwhile == "before it begins":
            storage.write_bytes(storage.join(target, "part-of-another"), b"rows")
        with unfinished_folder(target) as table:
            assert meanwhile == "while it works", "it is said before the work is done"
            _write(table)
            storage.write_bytes(storage.join(target, "part-of-another"), b"rows")

    with pytest.raises(OutputError, match="exists; expected a new folder"):
        write_too()
    assert storage.list_names(target) == ["part-of-another"]
    assert storage.list_names(folder) == ["table [x]"]


def test_a_writer_that_another_one_has_replaced_makes_no_table(target: str) -> None:
    def stall() -> None:
        with unfinished_folder(target) as table:
            _write(table)
            storage.write_bytes(
                storage.join(f"{target}.unfinished", "lease.json"), Lease(f"{target}.unfinished")._content()
            )

    with pytest.raises(InterruptedRunError, match="taken over"):
        stall()
    assert not storage.exists(target)
    assert storage.list_names(f"{target}.unfinished") == ["lease.json"], "of the other one"


def test_a_table_that_cannot_be_copied_whole_is_not_there_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    copy = type(memory).cp_file

    def fail_once(self: Any, source: str, target: str) -> None:
        if source.endswith("part-1"):
            raise OSError("lost the connection")
        copy(self, source, target)

    def write() -> None:
        with unfinished_folder("memory://bucket/out") as table:
            _write(table)

    monkeypatch.setattr(type(memory), "cp_file", fail_once)
    with pytest.raises(StorageError, match="lost the connection"):
        write()
    assert storage.list_names("memory://bucket") == []
    monkeypatch.undo()
    write()
    assert storage.list_names("memory://bucket/out") == _NAMES
    memory.store.clear()
