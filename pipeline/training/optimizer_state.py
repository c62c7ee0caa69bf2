"""RANK. An optimizer's state as tensors and JSON values, so that there is nothing to unpickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state as named tensors, and what is not a tensor as JSON values."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            (tensors if isinstance(value, Tensor) else values)[f"{number}.{key}"] = value
    groups = [{k: v for k, v in group.items() if k != "params" and _is_json(v)} for group in optimizer.param_groups]
    return tensors, {"values": values, "groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    """Take over what `optimizer_state` gave, bit by bit: ``load_state_dict`` would change dtypes."""
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for name, value in {**tensors, **rest["values"]}.items():
        number, _, key = name.partition(".")
        optimizer.state[parameters[int(number)]][key] = value
    for group, saved in zip(optimizer.param_groups, rest["groups"], strict=True):
        kept = {k: v for k, v in saved.items() if v is not None or not isinstance(group.get(k), float)}  # no infinities
        group.update({k: tuple(v) if isinstance(group.get(k), tuple) else v for k, v in kept.items()})


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
