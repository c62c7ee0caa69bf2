"""Storage: odd names are ordinary, writes are atomic, and what cannot be read is named."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from pipeline import storage
from pipeline.errors import ConfigError, ServiceError, StorageError
from pipeline.lease import Lease

ODD = "a folder [x]*?/näme é 日本"


def test_a_file_with_an_odd_name_is_written_listed_read_and_removed(folder: str) -> None:
    url = storage.join(folder, ODD)
    storage.write_bytes(url, b"one")
    storage.write_bytes(url, b"two")
    assert storage.read_bytes(url) == b"two"
    assert storage.list_names(storage.join(folder, "a folder [x]*?")) == ["näme é 日本"]
    assert storage.size(url) == 3
    storage.remove(storage.join(folder, "a folder [x]*?"))
    assert not storage.exists(url)
    assert storage.list_names(storage.join(folder, "a folder [x]*?")) == []


def test_what_is_there_is_told_from_what_is_not(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "a b/file"), b"")
    for there in (folder, storage.join(folder, "a b"), storage.join(folder, "a b/file")):
        assert storage.exists(there)
    for absent in ("a", "a b/fil", "a b/file/inner", "a\0b"):
        assert not storage.exists(storage.join(folder, absent))


@pytest.mark.parametrize(
    ("raised", "expected"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.EIO, "I/O error"), StorageError)]
)
def test_whether_a_file_is_there_is_not_answered_where_that_cannot_be_seen(
    folder: str, raised: BaseException, expected: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = storage.join(folder, "file")

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(type(storage.filesystem(url)[0]), "info", fail)
    looks: list[Callable[[], object]] = [lambda: storage.exists(url)]
    if "://" in folder and not folder.startswith("file:"):
        looks.append(lambda: storage.put_if_absent(url, b""))
    for look in looks:
        with pytest.raises(expected):
            look()


def test_only_the_first_of_two_writers_puts_a_file(folder: str) -> None:
    url = storage.join(folder, "pointer.json")
    assert storage.put_if_absent(url, b"first")
    assert not storage.put_if_absent(url, b"second")
    assert storage.read_bytes(url) == b"first"


@pytest.mark.parametrize("store", ["conditional", "obeys nothing", "looks and writes"])
def test_a_store_that_creates_files_for_two_is_warned_of_once_and_overwrites_none_that_is_there(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr("pipeline.storage.exclusive._looked_at", set())
    if store == "obeys nothing":
        write = memory.pipe_file
        monkeypatch.setattr(memory, "pipe_file", lambda self, path, value, mode: write(self, path, value))
    elif store == "looks and writes":
        monkeypatch.delattr(memory, "pipe_file")
    fsspec.filesystem("memory").store.clear()
    for name in ("a", "b"):
        with Lease(f"memory://bucket/{name}"):
            assert storage.list_names(f"memory://bucket/{name}") == ["lease.json"]
            assert not storage.put_if_absent(f"memory://bucket/{name}/lease.json", b"")
    warned = [one.message for one in caplog.records if "does not create files exclusively" in one.message]
    assert len(warned) == (store != "conditional")
    fsspec.filesystem("memory").store.clear()


def test_a_digest_is_that_of_the_bytes_written(folder: str) -> None:
    url = storage.join(folder, "part")
    data = os.urandom(100_000)
    with storage.open_write(url) as stream:
        stream.write(data[:7])
        stream.write(memoryview(data)[7:])
    expected = storage.Digest(len(data), zlib.crc32(data), hashlib.sha256(data).hexdigest())
    assert stream.digest == expected == storage.digest_file(url)
    assert storage.digest_file(url, deep=False).sha256 == ""


def test_a_failed_write_leaves_no_file(folder: str) -> None:
    url = storage.join(folder, "half")

    def fail_halfway() -> None:
        with storage.open_write(url) as stream:
            stream.write(b"half")
            raise RuntimeError("the task failed")

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert not storage.exists(url)


@pytest.mark.parametrize(
    ("write", "moment"),
    [
        (storage.write_bytes, "fsync"),
        (storage.write_bytes, "replace"),
        (storage.put_if_absent, "fsync"),
        (storage.put_if_absent, "link"),
    ],
)
def test_a_write_that_is_interrupted_leaves_no_file(
    write: Callable[[str, bytes], object], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(str(tmp_path / "file"), b"data")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(folder: str) -> None:
    url = storage.join(folder, "absent.json")
    with pytest.raises(StorageError, match=r"absent\.json is missing"):
        storage.read_bytes(url)


def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        storage.write_bytes(str(tmp_path / "file" / "inner"), b"")


def test_a_folder_that_cannot_be_made_is_no_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, **_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(os, "makedirs", refuse)  # as in /proc
    url = str(tmp_path / "run" / "file")

    def open_new() -> None:
        with storage.open_new(url):
            pass

    for write in (lambda: storage.write_bytes(url, b""), lambda: storage.put_if_absent(url, b""), open_new):
        with pytest.raises(StorageError, match="file cannot be made: No such file or directory; expected a folder"):
            write()


def test_a_full_disk_says_so() -> None:
    with pytest.raises(StorageError, match="the disk is full") as caught, storage.storage_errors("/data/x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.code == 74


def test_readers_take_the_current_and_the_previous_format_and_refuse_a_newer_one(tmp_path: Path) -> None:
    url = str(tmp_path / "x.json")
    storage.write_json(url, "thing", 3, {"a": 1})
    assert storage.read_json(url, "thing", 3) == {"a": 1}
    assert storage.read_json(url, "thing", 4) == {"a": 1}
    for kind, number in (("thing", 2), ("thing", 5), ("other", 3)):
        with pytest.raises(StorageError, match="has format thing/3"):
            storage.read_json(url, kind, number)


def test_broken_json_is_named_as_possibly_corrupt(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StorageError, match="may be corrupt"):
        storage.read_json(str(tmp_path / "x.json"), "thing", 1)


def test_numbers_that_json_does_not_know_are_null_in_files_however_deep_they_lie(tmp_path: Path) -> None:
    value = {"best": {"metrics": {"roc_auc": math.nan, "loss": 0.1}}, "bounds": (1, [math.inf, -math.inf])}
    url = str(tmp_path / "a.json")
    storage.write_json(url, "thing", 1, value)
    assert json.loads(Path(url).read_text(), parse_constant=pytest.fail)["bounds"] == [1, [None, None]]
    metrics = storage.numbers(storage.read_json(url, "thing", 1)["best"]["metrics"])
    assert math.isnan(metrics["roc_auc"])
    assert metrics["loss"] == 0.1


def test_a_text_that_is_no_utf_8_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    url = str(tmp_path / "a.json")
    storage.write_json(url, "thing", 1, {"error": "no such file: caf\udce9 日本"})
    assert storage.read_json(url, "thing", 1)["error"] == "no such file: caf\udce9 日本"


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert storage.sha256_of({"a": 1, "b": [0.1, "ü"]}) == storage.sha256_of({"b": [0.1, "ü"], "a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        storage.canonical_json(float("nan"))


def test_paths_resolve_against_a_folder_or_url() -> None:
    assert storage.resolve("a/../b", "/base") == "/base/b"
    assert storage.resolve("/abs", "/base") == "/abs"
    assert storage.resolve("s3://x/y", "/base") == "s3://x/y"
    assert storage.resolve("data", "s3://bucket/conf") == "s3://bucket/conf/data"


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("dbfs:/mnt/x", "/dbfs/mnt/x or a path below /Volumes"),
        ("file:/tmp/a", "/tmp/a or file:///tmp/a"),
        ("hdfs:/data", "hdfs:///data or hdfs://host:port/data"),
        ("S3:/bucket/x", "s3://bucket/x"),
    ],
)
def test_paths_of_hadoop_do_not_become_folders_of_that_name(
    url: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for action in (lambda: storage.write_bytes(url, b""), lambda: storage.resolve(url, "/base")):
        with pytest.raises(ConfigError) as caught:
            action()
        assert str(caught.value) == f"{url} is neither a path nor a URL; expected {meant}; write it so"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scheme", "error", "package"),
    [
        ("gs", ImportError("Please install gcsfs to access Google Storage"), "package gcsfs"),
        ("abfss", ValueError("Protocol not known: abfss"), "package adlfs"),
        ("sftp", ImportError("paramiko is missing"), "its package"),
        ("hdfs", OSError("Unable to load libjvm: cannot open"), "a Hadoop client"),
    ],
)
def test_a_missing_driver_of_a_remote_store_is_a_missing_service(
    scheme: str, error: Exception, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_: str) -> None:
        raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", unavailable)
    with pytest.raises(ServiceError, match=f"{scheme}://bucket/x is not reachable: .*; expected {package}"):
        storage.exists(f"{scheme}://bucket/x")


def test_a_scheme_that_nobody_knows_is_a_wrong_configuration() -> None:
    with pytest.raises(ConfigError, match=r"foo://x is of no known kind: Protocol not known.*; expected a path"):
        storage.list_names("foo://x")
