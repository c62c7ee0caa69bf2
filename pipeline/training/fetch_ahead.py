"""RANK. Copies the remote files of an epoch to the local disk before readers ask for them, a few files ahead."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pipeline.dataset import PartFile
from pipeline.errors import StorageError
from pipeline.plan import BUNDLE_FILES
from pipeline.training.disk_cache import Stopped
from pipeline.training.part_files import PartFiles


class FetchAhead:
    """A thread that fetches in the order of need; what fails is left to the reader, who says so.

    Args:
        files: where they come from.
        parts: in the order of need, without repetition.
    """

    def __init__(self, files: PartFiles, parts: Sequence[PartFile]) -> None:
        self._files, self._parts = files, parts
        self._place = {part.path: place for place, part in enumerate(parts)}
        # The files of a bundle are read at the same time; those of the next one may come if they fit beside it.
        self._ahead = max(0, min(BUNDLE_FILES, files.room_for(parts) - BUNDLE_FILES))
        self._needed = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="fetch-ahead", daemon=True)
        self._thread.start()

    def needs(self, part: PartFile) -> None:
        """A reader has come to this file."""
        with self._changed:
            self._needed = max(self._needed, self._place[part.path])
            self._changed.notify()

    def close(self) -> None:
        """Stop, within a chunk of a file."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        for place, part in enumerate(self._parts):
            self._wait_for_turn(place)
            try:
                self._files.check(part, lambda: self._closed)
            except StorageError:
                continue
            except Stopped:
                return

    def _wait_for_turn(self, place: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or place <= self._needed + self._ahead)
