"""DRIVER. Remove old versions of a dataset: never the newest, nor what another version, a run or a reader needs.

Readers that hold what they read (`pipeline.dataset.holds`) are the trainings and evaluations of `flow`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from pipeline import storage
from pipeline.dataset import Dataset, commit_numbers, read_commit, version_url
from pipeline.dataset.holds import held_versions
from pipeline.errors import StorageError
from pipeline.lease import Lease
from pipeline.run_folder import RunFolder


def collect_garbage(url: str, keep: int, runs: Iterable[str] = ()) -> list[str]:
    """Remove all but the newest ``keep`` versions.

    Args:
        url: of the dataset.
        keep: how many of the newest versions stay, at least 1.
        runs: urls of run folders, whose versions stay.

    Returns:
        The content ids of the removed versions.

    Raises:
        OutputError: another process is publishing there.
    """
    with Lease(url):
        commits = {number: str(read_commit(url, number)["content_id"]) for number in commit_numbers(url)}
        newest = list(dict.fromkeys(reversed(commits.values())))
        kept = {*newest[: max(1, keep)], *held_versions(url), *_of_runs(runs)} & set(newest)
        kept |= {name for one in kept for name in _referred(url, one)}
        for number, content_id in commits.items():
            if content_id not in kept:
                storage.remove(storage.join(url, "_commits", f"{number}.json"))
        removed = [name for name in storage.list_names(storage.join(url, "versions")) if name not in kept]
        for name in removed:
            storage.remove(version_url(url, name))
        return removed


def _referred(url: str, content_id: str) -> set[str]:
    """The versions whose files a version consists of."""
    manifest = Dataset.open(url, content_id).manifest
    paths = [*(part.path for parts in manifest.splits.values() for part in parts), *manifest.extra_files]
    return {path.split("/")[1] for path in paths}


def _of_runs(runs: Iterable[str]) -> set[str]:
    found = set()
    for run in runs:
        with contextlib.suppress(StorageError):
            found.add(RunFolder(run).content_id() or "")
    return found
