"""RANK. Whether ranks hold the same weights: looked at whenever weights are saved, which are those of rank 0."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from pipeline.errors import RankFailedError
from pipeline.training.collective import Collective

_ROUNDING = 1e-5
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

logger = logging.getLogger(__name__)


def agree_on_weights(model: torch.nn.Module, collective: Collective, step: int) -> None:
    """Make sure that ranks have not trained apart; to be called on all of them.

    Hosts of several kinds may round differently; then all ranks take the weights of rank 0.

    Args:
        model: what learns.
        collective: the ranks.
        step: how many steps are done.

    Raises:
        RankFailedError: weights differ by more than rounding.
    """
    weights = [_real(parameter.detach()) for parameter in model.parameters()]
    if collective.world_size == 1 or len(set(collective.gather_objects(_digest(weights)))) == 1:
        return
    mine = [tensor.clone() for tensor in weights]
    collective.broadcast_(weights)
    distances = collective.gather_objects(_distance(mine, weights))
    if apart := [rank for rank, distance in enumerate(distances) if not distance <= _ROUNDING]:
        raise RankFailedError(
            f"ranks have trained apart: after step {step} the weights of rank {', '.join(map(str, apart))} are not "
            f"those of rank 0, by {max(distances):.1g} of their norm; expected the same on all; in a loop from code "
            "gradients come from context.backward() and weights move in context.step() only; model, optimizer and "
            "callback may not change weights in a way that differs between ranks"
        )
    logger.warning("after step %d last bits of the weights differ between ranks; all take those of rank 0", step)


def _digest(tensors: list[Tensor]) -> int:
    """A number that depends on every bit, and not on the order of addition."""
    bits = [tensor.contiguous().view(_INTEGERS[tensor.element_size()]) for tensor in tensors]
    sums = [each.sum(dtype=torch.int64) for each in bits]
    return sum((2 * place + 1) * int(total) for place, total in enumerate(sums)) % 2**64


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    """The norm of the difference over that of the weights."""
    return _norm([a - b for a, b in zip(one, other, strict=True)]) / max(_norm(other), 1e-300)


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2 for tensor in tensors))
