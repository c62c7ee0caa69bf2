"""RANK. Where Horovod writes its timeline: when each bucket was announced by which rank, summed, and done.

Horovod 0.28.1 writes it on rank 0 alone, for all ranks, to a plain file that the environment names at `hvd.init`.
`hvd.start_timeline` opens a file later, but only if the environment has named one (`DYNAMIC`) at that moment too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator

from pipeline import storage
from pipeline.errors import StorageError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def timeline_variables(url: str | None) -> Iterator[dict[str, str]]:
    """The environment that makes rank 0 write the timeline; the file is at ``url`` when the block ends.

    On a local path it grows there, and outlives a killed rank; to other stores it is copied at the end. A store that
    refuses it is a line in the log, and no reason for a training to fail.
    """
    if url is None:
        yield {}
    elif storage.is_local(url):
        path = storage.local_path(url)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        yield {"HOROVOD_TIMELINE": path}
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "timeline.json")
            try:
                yield {"HOROVOD_TIMELINE": path}
            finally:
                if os.path.exists(path):
                    _copy(path, url)


def _copy(path: str, url: str) -> None:
    try:
        storage.write_bytes(url, storage.read_bytes(path))
    except StorageError as error:
        logger.warning("Horovod's timeline is not kept: %s", error)
