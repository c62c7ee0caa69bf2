"""RANK, and tried on the DRIVER before. Start from the weights of an earlier model instead of random ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.models.model_folder import read_model_folder
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
    fitting = fitting_tensors(model, url)
    model.load_state_dict(fitting, strict=False)
    total, left = len(model.state_dict()), sorted(set(model.state_dict()) - set(fitting))
    logger.info("%d of %d tensors come from %s; random: %s", len(fitting), total, url, ", ".join(left) or "none")


def fitting_tensors(model: torch.nn.Module, url: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint or model folder that a model has too, in the same shape.

    Raises:
        ConfigError: there is none; names all of both sides.
        StorageError: the folder is missing or corrupt.
    """
    found, wanted = _weights(url), model.state_dict()
    fitting = {name: t for name, t in found.items() if name in wanted and t.shape == wanted[name].shape}
    if not fitting:
        raise ConfigError(
            f"training.init_from is {url}, of which no tensor fits: it has {_named(found)}; expected some of the "
            f"model's: {_named(wanted)}; choose a model of the same architecture, or leave training.init_from out"
        )
    return fitting


def _named(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items())) or "nothing"


def _weights(url: str) -> dict[str, Tensor]:
    if "model.safetensors" in storage.list_names(url):
        return read_weights(url)
    _, weights, _ = read_model_folder(url)
    return weights
