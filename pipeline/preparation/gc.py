"""DRIVER. Remove old versions of a dataset: never the newest, nor what another version, a run or a reader needs.

Readers hold what they read, and runs leave marks (`pipeline.dataset.holds`). With a version go the requests that it
answered and its quarantine, and so do quarantines of attempts that newer versions have left behind.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline import storage
from pipeline.dataset import Dataset, commit_numbers, read_commit
from pipeline.dataset.holds import RunMark, held_versions, perhaps_held_versions, run_marks
from pipeline.errors import StorageError
from pipeline.lease import Lease
from pipeline.preparation.account import attempts
from pipeline.preparation.publish import answers
from pipeline.run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Garbage:
    """What nobody needs any more, by what it is.

    Attributes:
        versions: content ids.
        quarantines: attempts.
        requests, marks, commits: paths in the dataset.
    """

    versions: tuple[str, ...]
    quarantines: tuple[str, ...]
    requests: tuple[str, ...]
    marks: tuple[str, ...]
    commits: tuple[str, ...]

    def paths(self) -> Iterator[str]:
        """In the order in which they can be removed: what points to a version first."""
        yield from (*self.commits, *self.requests, *self.marks)
        yield from (f"versions/{one}" for one in self.versions)
        yield from (f"quarantine/{one}" for one in self.quarantines)


def collect_garbage(url: str, keep: int, runs: Iterable[str] = (), dry_run: bool = False) -> Garbage:
    """Remove all but the newest ``keep`` versions, and what belongs to the others.

    Args:
        url: of the dataset.
        keep: how many of the newest versions stay, at least 1.
        runs: urls of run folders, whose versions stay as those of runs with marks do.
        dry_run: only say what would be removed; whatever is held then counts as held by somebody who lives.

    Raises:
        OutputError: another process is publishing there.
    """
    if dry_run:
        return _garbage(url, keep, runs, perhaps_held_versions(url))
    with Lease(url):
        found = _garbage(url, keep, runs, held_versions(url))
        for path in found.paths():
            storage.remove(storage.join(url, path))
        return found


def _garbage(url: str, keep: int, runs: Iterable[str], held: Container[str]) -> Garbage:
    commits = {number: str(read_commit(url, number)["content_id"]) for number in commit_numbers(url)}
    newest = list(dict.fromkeys(reversed(commits.values())))
    marks = run_marks(url)
    living = {path: mark for path, mark in marks.items() if _needs(url, path, mark)}
    needed = {*newest[: max(1, keep)], *(RunFolder(run).content_id() for run in runs)}
    needed |= {mark.content_id for mark in living.values()} | {one for one in newest if one in held}
    kept = {one: Dataset.open(url, one) for one in newest if one in needed}
    kept |= {one: Dataset.open(url, one) for dataset in kept.values() for one in _referred(dataset)}
    return Garbage(
        versions=tuple(one for one in storage.list_names(storage.join(url, "versions")) if one not in kept),
        quarantines=tuple(_left_behind(url, kept, max(commits, default=0))),
        requests=tuple(path for path, identity in answers(url).items() if identity not in kept),
        marks=tuple(path for path in marks if path not in living),
        commits=tuple(f"_commits/{number}.json" for number, one in commits.items() if one not in kept),
    )


def _referred(dataset: Dataset) -> set[str]:
    """The versions whose files a version consists of."""
    manifest = dataset.manifest
    paths = [*(part.path for parts in manifest.splits.values() for part in parts), *manifest.extra_files]
    return {path.split("/")[1] for path in paths}


def _needs(url: str, path: str, mark: RunMark) -> bool:
    """Whether the run is still there, and still of that version; what cannot be known counts as yes."""
    try:
        trained_on = RunFolder(mark.run).content_id()
    except StorageError:
        return True
    if trained_on is None and mark.host not in (None, socket.gethostname()):
        logger.info(
            "version %s stays for run %s of host %s, which cannot be looked at from here; if it is gone, remove %s",
            mark.content_id[:12],
            mark.run,
            mark.host,
            storage.join(url, path),
        )
        return True
    return trained_on == mark.content_id


def _left_behind(url: str, kept: Mapping[str, Dataset], newest: int) -> Iterator[str]:
    """The quarantines of no version that stays, but for those of attempts since the newest commit."""
    named = {dataset.manifest.quarantine for dataset in kept.values()}
    for attempt, after in attempts(url).items():
        if attempt not in named and after < newest:
            yield attempt
