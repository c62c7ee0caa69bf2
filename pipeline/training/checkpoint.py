"""RANK. Checkpoints: written beside training, complete or not there at all, verified before an older one goes.

    <run>/checkpoints/step-<n>/model.safetensors      weights and buffers
                               ema.safetensors        moving average of the weights, if there is one
                               optimizer.safetensors
                               rank-<r>.safetensors   each rank's own part: random states, compression residuals
                               rank-<r>.json          ... with its digest
                               state.json             all that is not a tensor, with the configuration
                               manifest.json          sizes and sha256 of the files above; last

Tensors are safetensors and all else is JSON: nothing is unpickled. Ranks agree through the files alone, so the
writing threads need no collective: rank 0 publishes once every rank's part lies in the attempt's folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import PipelineError, StorageError

MANIFEST_FORMAT = ("checkpoint-manifest", 1)
STATE_FORMAT = ("checkpoint-state", 1)
PART_FORMAT = ("checkpoint-part", 1)

_PUBLISHED = re.compile(r"step-(\d+)")
_POLL_SECONDS = 0.02
_PARTS_DEADLINE_SECONDS = 600.0

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest is good."""

    url: str
    step: int
    world_size: int
    files: Mapping[str, storage.Digest]

    def tensors(self, name: str) -> Tensors:
        """The tensors of a file, empty if there is no such file; bytes are checked against the manifest."""
        file = f"{name}.safetensors"
        return safetensors.torch.load(self._read(file)) if file in self.files else {}

    def state(self) -> dict[str, Any]:
        """All that is not a tensor."""
        return storage.parse_json(f"{self.url}/state.json", self._read("state.json"), *STATE_FORMAT)

    def own(self, rank: int) -> tuple[Tensors, dict[str, Any]]:
        """What a rank had saved for itself."""
        name = f"rank-{rank}.json"
        part = storage.parse_json(f"{self.url}/{name}", self._read(name), *PART_FORMAT)
        return self.tensors(f"rank-{rank}"), part["state"]

    def verify(self) -> None:
        """Read every file.

        Raises:
            StorageError: one is missing or not what the manifest says.
        """
        for name, digest in self.files.items():
            actual = storage.digest_file(storage.join(self.url, name))
            if actual.sha256 != digest.sha256:
                raise _corrupt(storage.join(self.url, name), actual.sha256, digest.sha256)

    def _read(self, name: str) -> bytes:
        url = storage.join(self.url, name)
        data = storage.read_bytes(url)
        actual = hashlib.sha256(data).hexdigest()
        if actual != self.files[name].sha256:
            raise _corrupt(url, actual, self.files[name].sha256)
        return data


def _corrupt(url: str, actual: str, expected: str) -> StorageError:
    return StorageError(f"{url} is corrupt: sha256 {actual}; expected {expected}; use another checkpoint")


def open_checkpoint(url: str) -> Checkpoint:
    """The checkpoint of a folder; only its manifest is read.

    Raises:
        StorageError: the manifest is missing, corrupt, or of a newer version of this package.
    """
    name = storage.join(url, "manifest.json")
    value = storage.read_json(name, *MANIFEST_FORMAT)
    digest = value.pop("digest", None)
    if digest != storage.sha256_of(value):
        raise _corrupt(name, storage.sha256_of(value), str(digest))
    files = {name: storage.Digest(**digest) for name, digest in value["files"].items()}
    return Checkpoint(url, value["step"], value["world_size"], files)


def read_weights(checkpoint_url: str) -> Tensors:
    """The weights to infer with: the moving average if there is one, and the model's own buffers."""
    checkpoint = open_checkpoint(checkpoint_url)
    return {**checkpoint.tensors("model"), **checkpoint.tensors("ema")}


def checkpoints_url(run_url: str) -> str:
    """The folder of a run's checkpoints."""
    return storage.join(run_url, "checkpoints")


def step_url(run_url: str, step: int) -> str:
    """The folder of the checkpoint after a step."""
    return storage.join(checkpoints_url(run_url), f"step-{step}")


def published_steps(run_url: str) -> list[int]:
    """Steps that have a checkpoint, oldest first; good or not."""
    names = storage.list_names(checkpoints_url(run_url))
    return sorted(int(match[1]) for name in names if (match := _PUBLISHED.fullmatch(name)))


def latest_good(run_url: str, tell: Callable[[str], None] = logger.warning) -> Checkpoint | None:
    """The newest checkpoint that is intact to the last byte; none if there is no checkpoint at all.

    Corrupt ones are set aside under another name, so that they never count among those that are kept.

    Raises:
        StorageError: there are checkpoints, and all are corrupt.
    """
    steps = published_steps(run_url)
    for step in reversed(steps):
        url = step_url(run_url, step)
        try:
            checkpoint = open_checkpoint(url)
            checkpoint.verify()
            return checkpoint
        except StorageError as error:
            tell(f"checkpoint step-{step} is not usable and is set aside, going back to the one before: {error}")
            aside = storage.join(checkpoints_url(run_url), f"corrupt-step-{step}")
            storage.remove(aside)
            storage.move_folder(url, aside)
    if steps:
        raise StorageError(
            f"{checkpoints_url(run_url)} holds no intact checkpoint; expected at least one of {len(steps)}; "
            "remove the run folder to train from the start"
        )
    return None


def sweep(run_url: str) -> None:
    """Remove what attempts that were killed have left; to be called by one process before any writes."""
    folder = checkpoints_url(run_url)
    for name in storage.list_names(folder):
        url = storage.join(folder, name)
        if name.startswith(".replaced-") and not storage.exists(storage.join(folder, name.split("-", 1)[1])):
            storage.move_folder(url, storage.join(folder, name.split("-", 1)[1]))
        elif name.startswith("."):
            storage.remove(url)


class CheckpointWriter:
    """Writes snapshots on a thread of its own, one at a time.

    Args:
        attempt: names the attempt's temporary folders; the same on all ranks, and never used before.
        keep: newest checkpoints that are kept beside the best one.

    Attributes:
        stalled_seconds: how long training has waited for writing.
    """

    def __init__(self, run_url: str, rank: int, world_size: int, attempt: str, keep: int) -> None:
        self._run_url = run_url
        self._rank = rank
        self._world_size = world_size
        self._attempt = attempt
        self._keep = keep
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
            self._thread.join()
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


def differing_keys(saved: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One text per leaf where two nested configurations differ."""
    found: list[str] = []
    for key in sorted(saved.keys() | wanted.keys()):
        was, now = saved.get(key), wanted.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differing_keys(was, now, f"{prefix}{key}.")
        elif json.dumps(was) != json.dumps(now):
            found.append(f"{prefix}{key} is {now}; expected {was} as in the run folder")
    return found
