"""RANK. Writes checkpoints beside training: verified before an older one goes.

Ranks agree through the files alone, so the writing threads need no collective: rank 0 publishes once every rank's
part lies in the attempt's folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import PipelineError, StorageError
from pipeline.training.checkpoint import (
    MANIFEST_FORMAT,
    PART_FORMAT,
    SIGN_SECONDS,
    STATE_FORMAT,
    Tensors,
    checkpoints_url,
    open_checkpoint,
    published_steps,
    step_url,
)

_POLL_SECONDS = 0.02
_PARTS_DEADLINE_SECONDS = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The state of a training after a step, copied out of its way.

    Attributes:
        files: name (``model``, ``optimizer``, ``ema``) to tensors; only rank 0 needs them, they are alike on all.
        state: JSON values, the same on all ranks.
        own: this rank's tensors; ``own_state`` this rank's JSON values.
        best_step: the checkpoint to keep beside the newest ones.
    """

    step: int
    files: Mapping[str, Tensors]
    state: Mapping[str, Any]
    own: Tensors
    own_state: Mapping[str, Any]
    best_step: int | None


class CheckpointWriter:
    """Writes snapshots on a thread of its own, one at a time.

    Args:
        attempt: names the attempt's temporary folders; the same on all ranks, and never used before.
        keep: newest checkpoints that are kept beside the best one.
        tell: hears now and then that training waits for writing, a sign of life.

    Attributes:
        stalled_seconds: how long training has waited for writing.
    """

    def __init__(
        self,
        run_url: str,
        rank: int,
        world_size: int,
        attempt: str,
        keep: int,
        tell: Callable[[str], None] = logger.debug,
    ) -> None:
        self._run_url = run_url
        self._rank = rank
        self._world_size = world_size
        self._attempt = attempt
        self._keep = keep
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._abandoned = threading.Event()
        self.stalled_seconds = 0.0

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the thread end; if this training fails, the parts of other ranks may never come."""
        self._abandoned.set()
        if self._thread is not None:
            self._thread.join()

    def save(self, snapshot: Snapshot) -> None:
        """Start to write; waits for the one before if that is still under way.

        Raises:
            StorageError: an earlier snapshot could not be written.
        """
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the last snapshot is on disk (on rank 0: published); raises what went wrong."""
        began = time.perf_counter()
        if self._thread is not None:
            while self._thread.is_alive():
                self._thread.join(SIGN_SECONDS)
                if self._thread.is_alive():
                    self._tell("training waits for a checkpoint to be written")
            self._thread = None
        self.stalled_seconds += time.perf_counter() - began
        self.check()

    def check(self) -> None:
        """Raise what went wrong so far, without waiting."""
        if self._error is not None:
            raise self._error

    def _write(self, snapshot: Snapshot) -> None:
        folder = storage.join(checkpoints_url(self._run_url), f".{self._attempt}-step-{snapshot.step}")
        try:
            self._write_own_part(folder, snapshot)
            if self._rank == 0:
                self._publish(folder, snapshot)
        except BaseException as error:
            self._error = error
            if self._rank == 0 and isinstance(error, PipelineError):
                storage.remove(folder)

    def _write_own_part(self, folder: str, snapshot: Snapshot) -> None:
        name = f"rank-{self._rank}"
        digest = _write_tensors(storage.join(folder, f"{name}.safetensors"), snapshot.own)
        part = {"digest": dataclasses.asdict(digest), "state": dict(snapshot.own_state)}
        storage.write_json(storage.join(folder, f"{name}.json"), *PART_FORMAT, part)

    def _publish(self, folder: str, snapshot: Snapshot) -> None:
        files = {
            f"{name}.safetensors": _write_tensors(storage.join(folder, f"{name}.safetensors"), tensors)
            for name, tensors in snapshot.files.items()
        }
        state = storage.format_json(*STATE_FORMAT, dict(snapshot.state))
        files["state.json"] = _write(storage.join(folder, "state.json"), state)
        files |= self._parts(folder)
        manifest: dict[str, Any] = {
            "step": snapshot.step,
            "world_size": self._world_size,
            "files": {name: dataclasses.asdict(digest) for name, digest in sorted(files.items())},
        }
        manifest["digest"] = storage.sha256_of(manifest)
        storage.write_json(storage.join(folder, "manifest.json"), *MANIFEST_FORMAT, manifest)
        open_checkpoint(folder).verify()
        self._put_in_place(folder, snapshot.step)
        self._remove_older(snapshot)

    def _parts(self, folder: str) -> dict[str, storage.Digest]:
        """The digests of all ranks' parts, as soon as they are there."""
        wanted = {f"rank-{rank}.json" for rank in range(self._world_size)}
        deadline = time.monotonic() + _PARTS_DEADLINE_SECONDS
        while missing := wanted - set(storage.list_names(folder)):
            if self._abandoned.wait(_POLL_SECONDS) or time.monotonic() > deadline:
                raise StorageError(
                    f"{folder} lacks {', '.join(sorted(missing))}; expected the parts of all ranks; "
                    "check that training.run_url is a folder that all ranks share"
                )
        files = {}
        for name in wanted:
            data = storage.read_bytes(storage.join(folder, name))
            part = storage.parse_json(name, data, *PART_FORMAT)
            files[name] = storage.Digest(len(data), 0, hashlib.sha256(data).hexdigest())
            files[name.replace(".json", ".safetensors")] = storage.Digest(**part["digest"])
        return files

    def _put_in_place(self, folder: str, step: int) -> None:
        """Rename; a checkpoint of the same step (before its validation, or of an undone future) makes way."""
        target = step_url(self._run_url, step)
        replaced = storage.join(checkpoints_url(self._run_url), f".replaced-step-{step}")
        if storage.exists(target):
            storage.remove(replaced)
            storage.move_folder(target, replaced)
        storage.move_folder(folder, target)
        storage.remove(replaced)

    def _remove_older(self, snapshot: Snapshot) -> None:
        older = [step for step in published_steps(self._run_url) if step < snapshot.step]
        for step in older[: max(0, len(older) - self._keep + 1)]:
            if step != snapshot.best_step:
                storage.remove(step_url(self._run_url, step))


def _write_tensors(url: str, tensors: Mapping[str, Tensor]) -> storage.Digest:
    return _write(url, safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()}))


def _write(url: str, data: bytes) -> storage.Digest:
    with storage.open_write(url) as stream:
        stream.write(data)
    return stream.digest
