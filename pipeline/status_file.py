"""DRIVER. What a command is doing, in ``<run>/status.json``: its stage, how far that is, and how it ended.

One writer for all stages, so that "finished" stands there only when the whole command is over. While it runs the file
is written every few seconds even if nothing happens: `pipeline status` tells a long silence from work. A command that
finds the folder held by another one, or a finished training in it, says nothing there until that is known to be its
own.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from pipeline import storage
from pipeline.errors import InterruptedRunError, StorageError, as_pipeline_error
from pipeline.lease import held_by_another
from pipeline.run_folder import STATUS, STATUS_FORMAT, RunFolder

_WRITE_SECONDS = 1.0
_HEARTBEAT_SECONDS = 10.0
_OF_ONE_STAGE = ("doing", "done", "total", "remaining_seconds", "error")

logger = logging.getLogger(__name__)


class StatusFile:
    """The status of a run; a file that cannot be written costs a warning.

    Args:
        run_url: the run folder.
        goes_on: whether the training that is over in the folder is known to be the one that the command is about, or
            stays what it is: what the file says of it stays, beside what follows.
    """

    def __init__(self, run_url: str, goes_on: bool = False) -> None:
        self._url = storage.join(run_url, STATUS)
        self._values: dict[str, Any] = {"stage": "train", "state": "starting", "started": time.time(), "restarts": 0}
        self._lock = threading.Lock()
        if goes_on:
            self.found()
        self._silent = False
        with contextlib.suppress(StorageError):
            self._silent = held_by_another(run_url) or (not goes_on and RunFolder(run_url).has_finished())
        self._written = 0.0
        self._warned = ""
        self._open = False
        self._failed: tuple[BaseException | None, str] = (None, "")

    @contextlib.contextmanager
    def command(self, name: str) -> Iterator[None]:
        """All that a command does; within another one it is a part of that."""
        if self._open:
            yield
            return
        self._open = True
        self._values["stage"] = name
        over = threading.Event()
        heart = threading.Thread(target=self._beat, args=(over,), name="status", daemon=True)
        heart.start()
        try:
            yield
            self.update(at_once=True, stage=name, state="finished")
        except BaseException as error:
            self._fail(error, str(self._values["stage"]))
            raise
        finally:
            over.set()
            heart.join()
            self._open = False

    @contextlib.contextmanager
    def stage(self, name: str, state: str = "running") -> Iterator[None]:
        """A stage of the command, or a command by itself; the stage that fails is named, whatever follows it."""
        with self.command(name):
            with self._lock:
                for key in _OF_ONE_STAGE:
                    self._values.pop(key, None)
            self.update(at_once=True, stage=name, state=state)
            try:
                yield
            except BaseException as error:
                self._fail(error, name)
                raise

    @property
    def speaks(self) -> bool:
        """Whether it is for this command to say how the folder's run is doing."""
        return not self._silent

    def found(self) -> None:
        """The command's training is there already: what the file says of it stays, beside what follows."""
        kept = ("stage", "state", "started")
        with self._lock, contextlib.suppress(StorageError):
            before = storage.read_json(self._url, *STATUS_FORMAT)
            self._values = {**before, **{name: self._values[name] for name in kept}}
            for key in _OF_ONE_STAGE:
                self._values.pop(key, None)
        self._silent = False

    def owned(self) -> None:
        """The folder is held by this command now: whatever was there before, its status is the one to see."""
        self._silent = False
        self.update(at_once=True)

    def update(self, at_once: bool = False, **values: Any) -> bool:
        """Note values; says whether the file was written, which happens once a second unless ``at_once``."""
        with self._lock:
            self._values.update(values)
            if self._silent:
                return False
            if not at_once and time.monotonic() - self._written < _WRITE_SECONDS:
                return False
            try:
                storage.write_json(self._url, *STATUS_FORMAT, {**self._values, "updated": time.time()})
            except StorageError as error:
                if str(error) != self._warned:
                    logger.warning("%s", error)
                self._warned = str(error)
            self._written = time.monotonic()  # after it, or a store of slow writes would be written to all the time
            return True

    def _fail(self, error: BaseException, stage: str) -> None:
        """Where the error was first seen counts."""
        if self._failed[0] is not error:
            self._failed = (error, stage)
        known = as_pipeline_error(error)
        stopped = isinstance(known, InterruptedRunError) or not isinstance(error, Exception)
        state = "interrupted" if stopped else "failed"
        self.update(at_once=True, stage=self._failed[1], state=state, error=str(known))

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(_HEARTBEAT_SECONDS):
            self.update()
