from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import InputMissingError, StorageError
from pipeline.inspect import describe
from pipeline.testing import tiny_dataset


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_dataset_is_described_with_its_rows_and_features(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=300, numeric=3, vectors={"v": ("float32", (2,))})
    text = describe(dataset.url)
    assert dataset.content_id in text
    assert "train       300 rows in 2 files, 5 row groups" in text
    assert "450 in = 450 published + 0 duplicates + 0 rejected" in text
    assert "3 numeric, 2 categorical, 1 vectors" in text
    assert "4 files" in text
    assert "crc32 good" in text


def test_every_file_that_is_wrong_is_named(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows=600)
    first, second, third = (Path(dataset.url, part.path) for part in dataset.manifest.splits["train"])
    flip(first)
    third.unlink()
    with pytest.raises(StorageError) as raised:
        describe(dataset.url)
    assert [str(path) in str(raised.value) for path in (first, second, third)] == [True, False, True]


def test_deep_looks_at_sha256_of_all_versions(tmp_path):
    old = tiny_dataset(str(tmp_path / "data"), rows=100, seed=1)
    tiny_dataset(str(tmp_path / "data"), rows=100, seed=2)
    assert "newest of 2 versions" in describe(old.url)
    assert "sha256 good" in describe(old.url, deep=True)
    flip(Path(old.url, old.manifest.splits["test"][0].path))
    describe(old.url)
    with pytest.raises(StorageError, match="corrupt"):
        describe(old.url, deep=True)


def test_a_version_is_described_by_its_own_folder(tmp_path, monkeypatch):
    old = tiny_dataset(str(tmp_path / "data"), rows=100, seed=1)
    tiny_dataset(str(tmp_path / "data"), rows=200, seed=2)
    version = Path(old.url, "versions", old.content_id)
    monkeypatch.chdir(version.parent)
    for path in (str(version), f"{version}/", old.content_id):
        text = describe(path)
        assert text.startswith(f"version of dataset {old.url}\n  content id  {old.content_id}\n")
        assert "train       100 rows" in text
        assert "crc32 good" in text
    flip(Path(old.url, old.manifest.splits["test"][0].path))
    with pytest.raises(StorageError, match=r"test/part-00000\.parquet is corrupt"):
        describe(str(version))


def folder(path: Path, kind: str, **values: object) -> Path:
    path.mkdir(parents=True)
    (path / "weights.safetensors").write_bytes(b"12345")
    digest = storage.digest_file(str(path / "weights.safetensors"))
    files = {"weights.safetensors": {"bytes": digest.bytes, "crc32": digest.crc32, "sha256": digest.sha256}}
    storage.write_json(str(path / "manifest.json"), f"{kind}-manifest", 1, {**values, "files": files})
    return path


def test_checkpoints_models_and_runs_are_described_and_checked(tmp_path):
    run = tmp_path / "run"
    checkpoint = folder(run / "checkpoints" / "step-30", "checkpoint", step=30, world_size=2)
    model = folder(run / "model", "model")
    (run / "result.json").write_text(json.dumps({"format": "result/1", "status": "done", "metrics": {"roc_auc": 0.75}}))
    assert "checkpoint" in describe(str(checkpoint))
    assert "step 30, world_size 2" in describe(str(checkpoint))
    text = describe(str(run))
    assert '"roc_auc": 0.75' in text
    assert "step-30" in text
    assert "model" in text
    flip(model / "weights.safetensors")
    (checkpoint / "weights.safetensors").unlink()
    with pytest.raises(StorageError) as raised:
        describe(str(run))
    assert len(raised.value.offences) == 2


def test_a_checkpoint_that_training_removes_meanwhile_is_no_offence(tmp_path, monkeypatch):
    old = folder(tmp_path / "checkpoints" / "step-10", "checkpoint", step=10)
    folder(tmp_path / "checkpoints" / "step-20", "checkpoint", step=20)
    digest_file = storage.digest_file

    def remove_first(url, **options):
        shutil.rmtree(old, ignore_errors=True)
        return digest_file(url, **options)

    monkeypatch.setattr(storage, "digest_file", remove_first)
    text = describe(str(tmp_path))
    assert "step-20: step 20" in text
    assert "step-10" not in text


def test_anything_else_is_refused(tmp_path):
    with pytest.raises(InputMissingError, match="holds nothing"):
        describe(str(tmp_path / "nowhere"))


def test_a_file_is_no_folder_and_a_broken_result_is_74(tmp_path):
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputMissingError, match="is a file; expected a dataset"):
        describe(str(tmp_path / "result.json"))
    with pytest.raises(StorageError, match=r"result\.json is not a result file"):
        describe(str(tmp_path))
