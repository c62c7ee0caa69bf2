from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.dataset import Dataset
from pipeline.errors import StorageError
from pipeline.plan import BUNDLE_FILES
from pipeline.testing import tiny_dataset
from pipeline.training import checks, disk_cache, part_files, remote
from pipeline.training.loader import Loader
from tests.stacks import READERS


@pytest.fixture(params=READERS)
def reader(request):
    return request.param


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_DELAY_SECONDS", 0.001)
    checks.forget()
    part_files._plain.clear()


@pytest.fixture
def url():
    """A folder in the memory of this process, with a space and brackets in its name."""
    url = f"memory://{uuid.uuid4().hex}/a b[c]"
    yield url
    fsspec.filesystem("memory").rm(url.removeprefix("memory:/").rpartition("/")[0], recursive=True)


def make(url, rows=100):
    return tiny_dataset(url, rows={"train": rows}, rows_per_row_group=7, rows_per_file=20)


def ids_of(loader):
    return [id_ for batch in loader for id_ in batch.ids["id"].tolist()]


def loader_of(dataset, **options):
    return Loader(dataset, global_batch_size=16, window_bytes=700, with_ids=True, **options)


def test_a_dataset_of_any_fsspec_filesystem_gives_the_batches_of_a_local_one(tmp_path, url, reader):
    make(url)
    local = make(str(tmp_path / "data"))
    assert ids_of(loader_of(Dataset.open(url), reader=reader)) == ids_of(loader_of(local, reader=reader))


def test_a_missing_and_a_corrupt_remote_file_are_named(url, reader):
    dataset = make(url)
    memory, path = fsspec.filesystem("memory"), f"{url}/{dataset.manifest.splits['train'][2].path}"
    good = memory.cat_file(path)
    memory.pipe_file(path, good[:500] + b"x" + good[501:])
    with pytest.raises(StorageError, match="corrupt"):
        ids_of(loader_of(dataset, reader=reader))
    memory.rm_file(path)
    with pytest.raises(StorageError, match="missing"):
        ids_of(loader_of(dataset, reader=reader))


class Flaky:
    """Makes every n-th call of the filesystem fail as networks do."""

    def __init__(self, monkeypatch, every):
        self.calls, self.failures, self.every = 0, 0, every
        for name in ("cat_ranges", "cat_file", "_open"):
            monkeypatch.setattr(MemoryFileSystem, name, self._wrap(getattr(MemoryFileSystem, name)))

    def _wrap(self, method):
        def call(*arguments, **options):
            self.calls += 1
            if self.calls % self.every == 0:
                self.failures += 1
                raise ConnectionResetError("connection reset by peer")
            return method(*arguments, **options)

        return call


def test_transient_errors_are_tried_again(url, reader, monkeypatch):
    dataset = make(url)
    flaky = Flaky(monkeypatch, every=2)
    assert sorted(ids_of(loader_of(dataset, reader=reader))) == list(range(100))
    assert flaky.failures > 2


def test_a_storage_that_stays_away_is_an_error_that_names_the_file(url, reader, monkeypatch):
    dataset = make(url)
    Flaky(monkeypatch, every=1)
    with pytest.raises(StorageError, match="could not be read") as raised:
        ids_of(loader_of(dataset, reader=reader))
    assert url in str(raised.value)


def test_remote_files_are_fetched_once_into_the_cache_folder(tmp_path, url, reader, monkeypatch):
    dataset, folder = make(url), tmp_path / "cache"
    expected = ids_of(loader_of(dataset, reader=reader))
    assert ids_of(loader_of(dataset, reader=reader, cache_folder=str(folder))) == expected
    parts = dataset.manifest.splits["train"]
    assert sorted(path.stat().st_size for path in folder.iterdir()) == sorted(part.bytes for part in parts)
    monkeypatch.setattr(disk_cache, "_copy_checked", None)
    assert ids_of(loader_of(dataset, reader=reader, cache_folder=str(folder))) == expected


def test_the_cache_folder_stays_below_its_limit(tmp_path, url, reader):
    dataset, folder = make(url), tmp_path / "cache"
    limit = 2 * max(part.bytes for part in dataset.manifest.splits["train"])
    loader = loader_of(dataset, reader=reader, cache_folder=str(folder), cache_folder_bytes=limit)
    for _ in range(3):
        assert sorted(ids_of(loader)) == list(range(100))
        assert 0 < sum(path.stat().st_size for path in folder.iterdir()) <= limit


def test_a_file_that_went_bad_in_the_cache_folder_is_fetched_again(tmp_path, url, reader):
    dataset, folder = make(url), tmp_path / "cache"
    expected = ids_of(loader_of(dataset, reader=reader, cache_folder=str(folder)))
    for path in Path(folder).iterdir():
        path.write_bytes(os.urandom(path.stat().st_size))
    checks.forget()
    assert ids_of(loader_of(dataset, reader=reader, cache_folder=str(folder))) == expected


def test_a_file_is_opened_once_for_its_checksum_and_all_its_rows(url, monkeypatch):
    dataset = make(url)
    opened = []
    open_ = MemoryFileSystem._open

    def logged(self, path, *arguments, **options):
        opened.append(path)
        return open_(self, path, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "_open", logged)
    loader = loader_of(dataset, reader="pyarrow")
    for _ in range(2):
        assert sorted(ids_of(loader)) == list(range(100))
    assert len(opened) == len(set(opened)) == len(dataset.manifest.splits["train"])


def test_files_that_go_with_the_loader_leave_nothing(tmp_path, url, reader, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dataset = make(url)
    loader = loader_of(dataset, reader=reader)
    list(loader)
    assert len(list(tmp_path.glob("*/*.parquet"))) == len(dataset.manifest.splits["train"])
    del loader
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_leaving_in_the_middle_ends_the_fetching(url, reader):
    before = set(threading.enumerate())
    with contextlib.closing(iter(loader_of(make(url, rows=400), reader=reader))) as batches:
        next(batches)
    assert set(threading.enumerate()) <= before


def test_files_are_fetched_some_ahead_of_the_reader_and_no_further(tmp_path, url):
    dataset, folder = make(url, rows=400), tmp_path / "cache"
    with contextlib.closing(iter(loader_of(dataset, reader="pyarrow", cache_folder=str(folder)))) as batches:
        next(batches)
        deadline = time.monotonic() + 20
        while len(list(folder.glob("*.parquet"))) <= BUNDLE_FILES and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert BUNDLE_FILES < len(list(folder.glob("*.parquet"))) <= 2 * BUNDLE_FILES
    assert len(dataset.manifest.splits["train"]) == 20
