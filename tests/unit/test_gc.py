"""What garbage collection of a dataset removes, and what it keeps for those who need it."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path
from unittest import mock

import pytest
import yaml

from pipeline import cli, storage
from pipeline.dataset import Dataset, commit_numbers
from pipeline.dataset.holds import held_versions, hold, mark_run
from pipeline.errors import InputMissingError, StorageError
from pipeline.preparation.account import QUARANTINE_FORMAT
from pipeline.preparation.gc import Garbage, collect_garbage
from pipeline.preparation.publish import answers
from pipeline.testing import tiny_dataset


@pytest.fixture
def versions(tmp_path: Path) -> list[Dataset]:
    """Of one dataset, the oldest first."""
    return [tiny_dataset(str(tmp_path / "data"), rows=40, seed=seed) for seed in range(3)]


def trained(dataset: Dataset, folder: Path) -> str:
    """A run folder as a training on that version leaves it."""
    storage.write_json(str(folder / "training.json"), "training", 1, {"identity": {"dataset": dataset.content_id}})
    mark_run(dataset, str(folder))
    return str(folder)


def there(versions: list[Dataset]) -> list[bool]:
    return [Path(one.url, "versions", one.content_id).exists() for one in versions]


def files(url: str) -> set[str]:
    return {os.path.join(folder, name) for folder, _, names in os.walk(url) for name in names}


def test_the_newest_and_what_is_held_stay(versions: list[Dataset]) -> None:
    first, second, third = versions
    with hold(first):
        assert collect_garbage(third.url, keep=1).versions == (second.content_id,)
    assert Dataset.open(third.url, first.content_id).content_id == first.content_id
    assert collect_garbage(third.url, keep=1).versions == (first.content_id,)
    with pytest.raises(InputMissingError):
        Dataset.open(third.url, first.content_id)
    assert len(commit_numbers(third.url)) == 1
    assert Dataset.open(third.url).content_id == third.content_id


def test_a_loader_holds_its_version_as_long_as_it_is_there(versions: list[Dataset]) -> None:
    first, second, _ = versions
    loader = first.loader("train", global_batch_size=16)
    batches = iter(loader)
    next(batches)
    assert collect_garbage(first.url, keep=1).versions == (second.content_id,)
    assert len([*batches]) == 2
    assert len([*loader]) == 3, "the next epoch"
    del loader, batches
    gc.collect()
    assert held_versions(first.url) == set()
    assert collect_garbage(first.url, keep=1).versions == (first.content_id,)


def test_the_version_of_a_run_stays_as_long_as_the_folder_of_the_run(versions: list[Dataset], tmp_path: Path) -> None:
    first, second, _ = versions
    run = trained(first, tmp_path / "run")
    assert collect_garbage(first.url, keep=1).versions == (second.content_id,)
    assert there(versions) == [True, False, True]
    storage.remove(run)
    found = collect_garbage(first.url, keep=1)
    assert (found.versions, len(found.marks)) == ((first.content_id,), 1)
    assert not storage.list_names(storage.join(first.url, "_runs"))


def test_a_run_folder_that_has_become_another_run_keeps_the_other_version_alone(
    versions: list[Dataset], tmp_path: Path
) -> None:
    first, second, _ = versions
    for dataset in (first, second):
        trained(dataset, tmp_path / "run")
    assert collect_garbage(first.url, keep=1).versions == (first.content_id,)


def test_runs_that_cannot_be_looked_at_keep_their_versions(
    versions: list[Dataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = versions
    with mock.patch.object(socket, "gethostname", return_value="elsewhere"):
        mark_run(first, str(tmp_path / "run of another host"))
    broken = Path(trained(second, tmp_path / "broken"))
    (broken / "training.json").write_text("{")
    with caplog.at_level("INFO", "pipeline"):
        assert collect_garbage(third.url, keep=1).versions == ()
    assert "of host elsewhere, which cannot be looked at from here; if it is gone, remove" in caplog.text
    with pytest.raises(StorageError, match="training"):
        collect_garbage(third.url, keep=1, runs=[str(broken)])


def test_requests_and_quarantines_go_with_what_they_belong_to(versions: list[Dataset]) -> None:
    url, (first, _, third) = versions[0].url, versions
    for name, dataset in (("old", first), ("new", third)):
        storage.write_json(f"{url}/_requests/{name}.json", "dataset-request", 1, {"content_id": dataset.content_id})
    for attempt, after in (("a1", 0), ("a2", 2), ("a3", 3)):
        storage.write_json(f"{url}/quarantine/{attempt}/counts.json", *QUARANTINE_FORMAT, {"after": after})
    found = collect_garbage(url, keep=1)
    assert (found.quarantines, found.requests) == (("a1", "a2"), ("_requests/old.json",))
    assert storage.list_names(f"{url}/quarantine") == ["a3"], "an attempt that failed since"
    assert answers(url) == {"_requests/new.json": third.content_id}


def test_a_dry_run_says_the_same_and_writes_nothing(
    versions: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "_configure_logging", lambda _: None)
    url, before = versions[0].url, files(versions[0].url)
    config = tmp_path / "pipeline.yaml"
    config.write_text(yaml.safe_dump({"features": {"n0": {"type": "numeric"}}, "dataset": {"url": url}}))
    said = [f"versions/{one.content_id}" for one in versions[:2]] + ["_commits/1.json", "_commits/2.json"]
    for options, verb in ((["--dry-run"], "would remove"), ([], "removed")):
        assert files(url) == before
        assert cli.main(["gc", str(config), "--keep", "1", *options]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert {line for line in shown if line.startswith("gc: ")} == {f"gc: {verb} {path}" for path in said}
    assert there(versions) == [False, False, True]
    with hold(versions[2]):
        assert collect_garbage(url, keep=1, dry_run=True) == Garbage((), (), (), (), ())
