"""RANK. The states of a user's own objects, such as schedulers and averages, as JSON values and named tensors.

Nothing is pickled, so a state may hold numbers, texts, lists, tuples, dicts and tensors. What JSON would change is
written with a mark: ``{"tuple": [...]}``, ``{"dict": [[key, value], ...]}``, ``{"float": "inf"}``,
``{"tensor": [name, on the device]}``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import ConfigError


class Stateful(Protocol):
    """Whatever can be saved and go on: torch's schedulers, modules and optimizers, or a user's own class."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def states_of(objects: Mapping[str, Stateful]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of each object by name: tensors, and JSON values that refer to them.

    Raises:
        ConfigError: names everything that can be neither.
    """
    tensors: dict[str, Tensor] = {}
    offences: list[str] = []
    states = {}
    for name, each in objects.items():
        if callable(getattr(each, "state_dict", None)) and callable(getattr(each, "load_state_dict", None)):
            states[name] = _encode(each.state_dict(), name, tensors, offences)
        else:
            offences.append(
                f"{name} is a {type(each).__name__}; expected an object with state_dict() and load_state_dict()"
            )
    if offences:
        raise ConfigError(*offences)
    return tensors, states


def load_states(
    objects: Mapping[str, Stateful], tensors: Mapping[str, Tensor], states: Mapping[str, Any], device: torch.device
) -> None:
    """Give each object back what `states_of` took.

    Raises:
        ConfigError: the states are those of other objects.
    """
    if set(objects) != set(states):
        raise ConfigError(
            f"context.attach() got {', '.join(sorted(objects)) or 'nothing'} beside model and optimizer; expected "
            f"{', '.join(sorted(states)) or 'nothing'} as in the checkpoint; choose another training.run_url"
        )
    for name, each in objects.items():
        each.load_state_dict(_decode(states[name], tensors, device))


def _encode(value: Any, place: str, tensors: dict[str, Tensor], offences: list[str]) -> Any:
    if isinstance(value, Tensor):
        tensors[place] = value
        return {"tensor": [place, value.device.type != "cpu"]}
    if isinstance(value, Mapping):
        pairs = [
            [_encode(key, place, tensors, offences), _encode(item, f"{place}.{key}", tensors, offences)]
            for key, item in value.items()
        ]
        return {"counter" if isinstance(value, Counter) else "dict": pairs}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{place}.{number}", tensors, offences) for number, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is not None and not isinstance(value, bool | int | float | str):
        offences.append(
            f"the state of {place} is a {type(value).__name__}; expected numbers, texts, lists, dicts and tensors, "
            "since nothing is pickled; leave it out of state_dict()"
        )
    return value


def _decode(value: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors, device) for item in value]
    if not isinstance(value, dict):
        return value
    ((mark, inner),) = value.items()
    if mark == "tensor":
        name, on_device = inner
        return tensors[name].to(device) if on_device else tensors[name]
    if mark == "float":
        return float(inner)
    items = _decode(inner, tensors, device)
    if mark == "tuple":
        return tuple(items)
    return Counter(dict(items)) if mark == "counter" else dict(items)
