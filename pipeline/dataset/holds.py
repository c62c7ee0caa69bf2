"""ANYWHERE. Whoever reads a version of a dataset for long says so, and it is not collected meanwhile.

A hold is a lease in a folder of its own, ``<url>/_holds/<content id>.<random>/``: one that its holder no longer renews
holds nothing.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator

from pipeline import storage
from pipeline.dataset.versions import Dataset
from pipeline.errors import OutputError, PipelineError
from pipeline.lease import Lease

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def hold(dataset: Dataset) -> Iterator[None]:
    """Keep a version while it is read; who may only read goes on without."""
    folder = storage.join(_folder(dataset.url), f"{dataset.content_id}.{uuid.uuid4().hex}")
    lease = contextlib.ExitStack()
    with _may_fail(dataset):
        lease.enter_context(Lease(folder))
    try:
        yield
    finally:
        with _may_fail(dataset):
            lease.close()
            storage.remove(folder)


@contextlib.contextmanager
def _may_fail(dataset: Dataset) -> Iterator[None]:
    try:
        yield
    except PipelineError as error:
        logger.info("dataset %s is read without a hold: %s", dataset.url, error)


def held_versions(url: str) -> set[str]:
    """Content ids of the versions that somebody reads; holds of those who are gone are removed."""
    held = set()
    for name in storage.list_names(_folder(url)):
        folder = storage.join(_folder(url), name)
        try:
            with Lease(folder):
                pass
            storage.remove(folder)
        except OutputError:
            held.add(name.partition(".")[0])
    return held


def _folder(url: str) -> str:
    return storage.join(url, "_holds")
