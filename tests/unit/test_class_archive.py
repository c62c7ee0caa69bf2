"""The archive of Spark's classes: what happens where it cannot be made. That it is used is seen in `tests/spark`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import class_archive
from pipeline.errors import ServiceError, StorageError


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Java that makes no archives, with the archive's place below ``tmp_path / "share"``."""
    program = tmp_path / "java" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'Unrecognized option: -Xshare:dump' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(class_archive, "find_java", lambda: tmp_path / "java")
    monkeypatch.setattr(class_archive, "class_archive", lambda home: tmp_path / "share" / "classes.jsa")
    monkeypatch.setattr(class_archive, "_use_spark", lambda folder, option: "spark.jar")
    return tmp_path / "java"


def test_a_java_that_makes_no_archive_is_said_so_and_leaves_nothing(java: Path) -> None:
    with pytest.raises(ServiceError, match="Spark works without it") as error:
        class_archive.make()
    assert "Unrecognized option" in error.value.lines()[-1]
    assert str(java) in str(error.value)
    assert not list((java.parent / "share").iterdir())


def test_an_environment_that_cannot_be_written_is_said_so(java: Path) -> None:
    (java.parent / "share").write_text("a file")
    with pytest.raises(StorageError, match="expected 200 MB of room"):
        class_archive.make()


def test_an_archive_that_is_there_is_kept(java: Path) -> None:
    (java.parent / "share").mkdir()
    (java.parent / "share" / "classes.jsa").write_bytes(b"there")
    assert class_archive.make().read_bytes() == b"there"


def test_without_java_there_is_nothing_to_read_ahead(java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_archive, "find_java", lambda: None)
    with pytest.raises(ServiceError, match="Java is missing"):
        class_archive.make()
