"""RANK. Checkpoints on disk: complete or not there at all, verified before they are used; how they are written is in
`pipeline.training.checkpoint_writer`.

    <run>/checkpoints/step-<n>/model.safetensors      weights and buffers
                               ema.safetensors        moving average of the weights, if there is one
                               optimizer.safetensors
                               others.safetensors     what a loop from code keeps beside them, if there are tensors
                               rank-<r>.safetensors   each rank's own part: random states, compression residuals
                               rank-<r>.json          ... with its digest
                               state.json             all that is not a tensor, with the configuration
                               manifest.json          sizes and sha256 of the files above; last

Tensors are safetensors and all else is JSON: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.run_folder import CHECKPOINTS

MANIFEST_FORMAT = ("checkpoint-manifest", 1)
STATE_FORMAT = ("checkpoint-state", 2)
PART_FORMAT = ("checkpoint-part", 1)

SIGN_SECONDS = 10.0
"""After which whoever reads or writes a checkpoint says so: nobody finishes a step meanwhile."""

_PUBLISHED = re.compile(r"step-(\d+)")
_ASIDE = "corrupt-"

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


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

    def verify(self, tell: Callable[[str], None] = logger.debug) -> None:
        """Read every file; between files ``tell`` hears now and then that this goes on, a sign of life.

        Raises:
            StorageError: one is missing or not what the manifest says.
        """
        told = time.monotonic()
        for name, digest in self.files.items():
            if time.monotonic() - told > SIGN_SECONDS:
                tell(f"the checkpoint of step {self.step} is looked through: {name}")
                told = time.monotonic()
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
    return storage.join(run_url, CHECKPOINTS)


def step_url(run_url: str, step: int) -> str:
    """The folder of the checkpoint after a step."""
    return storage.join(checkpoints_url(run_url), f"step-{step}")


def published_steps(run_url: str) -> list[int]:
    """Steps that have a checkpoint, oldest first; good or not."""
    names = storage.list_names(checkpoints_url(run_url))
    return sorted(int(match[1]) for name in names if (match := _PUBLISHED.fullmatch(name)))


def latest_good(run_url: str, tell: Callable[[str], None] = logger.warning) -> Checkpoint | None:
    """The newest checkpoint that is intact to the last byte; none if there has never been a checkpoint.

    Corrupt ones are set aside under another name, so that they never count among those that are kept.

    Raises:
        StorageError: there are checkpoints, or were, and all are corrupt.
    """
    for step in reversed(published_steps(run_url)):
        try:
            checkpoint = open_checkpoint(step_url(run_url, step))
            checkpoint.verify(tell)
            return checkpoint
        except StorageError as error:
            tell(f"checkpoint step-{step} is not usable and is set aside, going back to the one before: {error}")
            set_aside(run_url, step)
    folder = checkpoints_url(run_url)
    if corrupt := [name for name in storage.list_names(folder) if name.startswith(_ASIDE)]:
        raise StorageError(
            f"{folder} holds no intact checkpoint, only {', '.join(sorted(corrupt))}; expected at least one; restore "
            "one under its name step-<n>, or remove that folder to train from the start"
        )
    return None


def set_aside(run_url: str, step: int) -> None:
    """Give a corrupt checkpoint another name; nothing if there is none of that step."""
    url = step_url(run_url, step)
    if storage.exists(url):
        aside = storage.join(checkpoints_url(run_url), f"{_ASIDE}step-{step}")
        storage.remove(aside)
        storage.move_folder(url, aside)


def sweep(run_url: str) -> None:
    """Remove what attempts that were killed have left; to be called by one process before any writes."""
    folder = checkpoints_url(run_url)
    for name in storage.list_names(folder):
        url = storage.join(folder, name)
        if name.startswith(".replaced-") and not storage.exists(storage.join(folder, name.split("-", 1)[1])):
            storage.move_folder(url, storage.join(folder, name.split("-", 1)[1]))
        elif name.startswith("."):
            storage.remove(url)
