"""Lists of files that are too long for JSON lie in Parquet beside it, and are checked when they are read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from pipeline import long_lists, storage
from pipeline.dataset import MANIFEST_FORMAT, Dataset, Manifest, read_manifest, version_url
from pipeline.errors import StorageError
from pipeline.testing import tiny_dataset


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(long_lists, "LONGEST", 2)
    return tiny_dataset(str(tmp_path / "data"), rows=1000)


def written(dataset: Dataset) -> tuple[Manifest, Path]:
    """The manifest with long lists of every kind, written as preparation does."""
    files = [[f"/in/{number}", number, str(number)] for number in range(5)]
    manifest = dataclasses.replace(
        dataset.manifest,
        inputs={"table": {"sha256": "0", "bytes": 10, "files": files}, "few": {"files": files[:1]}},
        extra_files={f"raw/{number}": storage.Digest(number, number, "f" * 64) for number in range(4)},
    )
    folder = version_url(dataset.url, dataset.content_id)
    data = storage.format_json(*MANIFEST_FORMAT, long_lists.put_aside(folder, manifest.to_json()))
    storage.write_bytes(storage.join(folder, "manifest.json"), data)
    return manifest, Path(folder)


def test_long_lists_leave_the_json_and_come_back_as_they_were(dataset: Dataset) -> None:
    manifest, folder = written(dataset)
    value = json.loads((folder / "manifest.json").read_text())
    assert value["splits"]["train"]["entries"] == len(manifest.splits["train"]) > 2
    assert value["inputs"]["table"]["files"]["entries"] == 5
    assert value["inputs"]["few"]["files"] == [["/in/0", 0, "0"]]
    assert set(value["extra_files"]) == {"list", "entries", "sha256"}

    data = (folder / "manifest.json").read_bytes()
    found = read_manifest(dataset.url, dataset.content_id, hashlib.sha256(data).hexdigest())
    assert found.splits == manifest.splits
    assert found.extra_files == manifest.extra_files
    assert json.dumps(found.to_json()["splits"]) == json.dumps(manifest.to_json()["splits"])


def test_a_corrupt_list_is_seen(dataset: Dataset) -> None:
    _, folder = written(dataset)
    path = folder / "parts-train.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"parts-train\.parquet is corrupt"):
        read_manifest(dataset.url, dataset.content_id)
