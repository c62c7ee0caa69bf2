"""ANYWHERE. Who needs a version of a dataset says so, and it is not collected meanwhile.

Whoever reads a version for long holds it: a lease in a folder of its own, ``<url>/_holds/<content id>.<random>/``; one
that its holder no longer renews holds nothing. A run that was trained on a version leaves a mark,
``<url>/_runs/<name>.json``, which counts as long as the run's folder is there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from pipeline import storage
from pipeline.dataset.versions import Dataset
from pipeline.errors import OutputError, PipelineError
from pipeline.lease import Lease

logger = logging.getLogger(__name__)

_MARK_FORMAT = ("dataset-run", 1)


@contextlib.contextmanager
def hold(dataset: Dataset) -> Iterator[None]:
    """Keep a version while it is read; who may only read goes on without."""
    folder = storage.join(_holds(dataset.url), f"{dataset.content_id}.{uuid.uuid4().hex}")
    lease = contextlib.ExitStack()
    with _may_fail(dataset, "read without a hold"):
        lease.enter_context(Lease(folder))
    try:
        yield
    finally:
        with _may_fail(dataset, "no longer read, but held"):
            lease.close()
            storage.remove(folder)


def hold_while_alive(dataset: Dataset, reader: object) -> None:
    """Keep a version as long as this process has an object that reads it."""
    held = contextlib.ExitStack()
    held.enter_context(hold(dataset))
    weakref.finalize(reader, _let_go, held, os.getpid())


def _let_go(held: contextlib.ExitStack, process: int) -> None:
    if os.getpid() == process:  # and not one that was forked from it
        held.close()


@contextlib.contextmanager
def _may_fail(dataset: Dataset, so: str) -> Iterator[None]:
    try:
        yield
    except PipelineError as error:
        logger.info("dataset %s is %s: %s", dataset.url, so, error)


def held_versions(url: str) -> set[str]:
    """Content ids of the versions that somebody reads; holds of those who are gone are removed."""
    held = set()
    for name in storage.list_names(_holds(url)):
        folder = storage.join(_holds(url), name)
        try:
            with Lease(folder):
                pass
            storage.remove(folder)
        except OutputError:
            held.add(name.partition(".")[0])
    return held


def perhaps_held_versions(url: str) -> set[str]:
    """The same without looking whether a holder still lives, which writes."""
    return {name.partition(".")[0] for name in storage.list_names(_holds(url))}


@dataclass(frozen=True)
class RunMark:
    """That a run was trained on a version.

    Attributes:
        host: where the run's folder is looked for, if it is a path; None if it is a URL, which is the same everywhere.
    """

    content_id: str
    run: str
    host: str | None


def mark_run(dataset: Dataset, run: str) -> None:
    """Keep a version for a run that begins on it, as long as the run's folder is there; who may only read goes on."""
    mark = RunMark(dataset.content_id, run, socket.gethostname() if storage.is_local(run) else None)
    name = storage.sha256_of([mark.run, mark.host])[:32]
    with _may_fail(dataset, f"not marked as that of {run}"):
        storage.write_json(storage.join(_runs(dataset.url), f"{name}.json"), *_MARK_FORMAT, asdict(mark))


def run_marks(url: str) -> dict[str, RunMark]:
    """The mark of each run, by its path in the dataset.

    Raises:
        StorageError: one of them cannot be read.
    """
    folder = _runs(url)
    files = {f"_runs/{name}": storage.join(folder, name) for name in storage.list_names(folder)}
    return {path: RunMark(**storage.read_json(file, *_MARK_FORMAT)) for path, file in files.items()}


def _holds(url: str) -> str:
    return storage.join(url, "_holds")


def _runs(url: str) -> str:
    return storage.join(url, "_runs")
