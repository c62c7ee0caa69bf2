"""RANK. Start from the weights of an earlier model instead of random ones."""

from __future__ import annotations

import hashlib
import json
import logging

import safetensors.torch
import torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import ConfigError, StorageError
from pipeline.training.checkpoint import read_weights

logger = logging.getLogger(__name__)


def warm_start(model: torch.nn.Module, url: str) -> None:
    """Take over every tensor that fits in name and shape; the others keep their random start, and the log names them.

    Args:
        model: of the new training.
        url: a checkpoint or a model folder.

    Raises:
        ConfigError: no tensor fits at all.
        StorageError: the folder is missing or corrupt.
    """
    found, wanted = _weights(url), model.state_dict()
    fitting = {name: t for name, t in found.items() if name in wanted and t.shape == wanted[name].shape}
    if not fitting:
        raise ConfigError(f"training.init_from is {url}, of which no tensor fits this model; expected a similar model")
    model.load_state_dict(fitting, strict=False)
    left = sorted(set(wanted) - set(fitting))
    logger.info("%d of %d tensors come from %s; random: %s", len(fitting), len(wanted), url, ", ".join(left) or "none")


def _weights(url: str) -> dict[str, Tensor]:
    if "model.safetensors" in storage.list_names(url):
        return read_weights(url)
    data = storage.read_bytes(storage.join(url, "weights.safetensors"))
    manifest = json.loads(storage.read_bytes(storage.join(url, "manifest.json")))
    if hashlib.sha256(data).hexdigest() != manifest["files"]["weights.safetensors"]["sha256"]:
        raise StorageError(f"{url}/weights.safetensors is corrupt; expected the sha256 of its manifest")
    return dict(safetensors.torch.load(data))
