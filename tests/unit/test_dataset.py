"""A dataset: readers find versions through commits only, and notice a changed manifest or pointer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import storage
from pipeline.dataset import Accounting, Dataset, Manifest, commit_numbers, commit_version, content_id
from pipeline.errors import InputMissingError, InterruptedRunError, StorageError
from pipeline.testing import tiny_dataset


def test_a_manifest_survives_json(tmp_path: Path) -> None:
    manifest = tiny_dataset(str(tmp_path / "data"), rows=50).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_newest_commit_is_opened_and_an_older_version_by_its_id(tmp_path: Path) -> None:
    url = str(tmp_path / "data")
    first, second = tiny_dataset(url, rows=50, seed=1), tiny_dataset(url, rows=60, seed=2)
    assert first.content_id != second.content_id
    assert Dataset.open(url).content_id == second.content_id
    assert Dataset.open(url, first.content_id).manifest == first.manifest


def test_committing_the_newest_version_again_changes_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "data")
    dataset = tiny_dataset(url, rows=50)
    before = commit_numbers(url)
    assert commit_version(url, dataset.content_id, "0" * 64) == before[-1]
    assert commit_numbers(url) == before


def test_a_writer_that_stalled_before_its_commit_is_checked_again_when_its_number_is_taken(tmp_path: Path) -> None:
    url = str(tmp_path / "data")
    first = tiny_dataset(url, rows=50, seed=1)
    checks: list[str] = []

    def stall() -> None:
        if checks:
            raise InterruptedRunError("taken over")
        checks.append(tiny_dataset(url, rows=60, seed=2).content_id)

    with pytest.raises(InterruptedRunError, match="taken over"):
        commit_version(url, "of the stalled", "0" * 64, stall)
    assert Dataset.open(url).content_id == checks[0] != first.content_id


def test_nothing_published_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"holds no published dataset; .* run `pipeline prepare` first"):
        Dataset.open(str(tmp_path))


@pytest.mark.parametrize("victim", ["manifest", "commit"])
def test_a_flipped_byte_in_manifest_or_pointer_is_seen(tmp_path: Path, victim: str) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows=50)
    folder = tmp_path / "data"
    path = (
        folder / "_commits" / "1.json"
        if victim == "commit"
        else folder / "versions" / dataset.content_id / "manifest.json"
    )
    data = bytearray(path.read_bytes())
    position = data.index(dataset.content_id.encode()) + 3
    data[position] = ord("0") if data[position] != ord("0") else ord("1")
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"corrupt|missing"):
        Dataset.open(dataset.url)


def test_the_content_id_depends_on_the_rows_and_not_on_files_checksums(tmp_path: Path) -> None:
    import dataclasses

    manifest = tiny_dataset(str(tmp_path / "data"), rows=50).manifest
    recompressed = {
        name: [dataclasses.replace(part, path="other", bytes=1, crc32=2, sha256="3") for part in parts]
        for name, parts in manifest.splits.items()
    }
    changed = {
        name: [dataclasses.replace(part, digest="other") for part in parts] for name, parts in manifest.splits.items()
    }
    arguments = (manifest.schema, manifest.semantic, manifest.statistics)
    assert content_id(*arguments, recompressed) == content_id(*arguments, manifest.splits)
    assert content_id(*arguments, changed) != content_id(*arguments, manifest.splits)


def test_accounting_balances_or_says_that_it_does_not() -> None:
    assert Accounting(10, 7, 1, 2).balanced
    assert not Accounting(10, 7, 1, 1).balanced
    assert Accounting(10, 7, 1, 2).as_rows() == {"in": 10, "published": 7, "duplicates": 1, "rejected": 2}


def test_a_notebook_shows_a_dataset_without_trusting_its_name(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "<b>"), rows=50)
    shown = dataset._repr_html_()
    assert "<b>/" not in shown.replace("<b>Dataset</b>", "")
    assert "train" in shown


def test_a_newer_manifest_format_is_refused_by_name(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows=50)
    path = storage.join(dataset.url, "versions", dataset.content_id, "manifest.json")
    text = storage.read_bytes(path).replace(b"dataset-manifest/1", b"dataset-manifest/9")
    with pytest.raises(StorageError, match="dataset-manifest/9"):
        storage.parse_json(path, text, "dataset-manifest", 1)
