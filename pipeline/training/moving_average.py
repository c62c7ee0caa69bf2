"""RANK. An average of the weights over the steps, which is what is validated and exported if there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class MovingAverage:
    """An exponential moving average of a model's weights.

    Args:
        decay: weight of the past; during the first steps less, so that the random start is soon forgotten.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}
        first = {id(parameter): name for name, parameter in self._live.items()}
        every = model.named_parameters(remove_duplicate=False)
        self._first_names = {name: first[id(parameter)] for name, parameter in every if id(parameter) in first}

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        live = [parameter.detach() for parameter in self._live.values()]
        torch._foreach_lerp_(list(self.weights.values()), live, 1 - decay)

    def swap(self) -> None:
        """Exchange the average with the weights in the model; again, to exchange them back."""
        with torch.no_grad():
            for name, parameter in self._live.items():
                kept = parameter.detach().clone()
                parameter.copy_(self.weights[name])
                self.weights[name].copy_(kept)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state(self) -> dict[str, Tensor]:
        """The average under every name that the model's ``state_dict`` has for it: tied weights have several."""
        return {name: self.weights[first] for name, first in self._first_names.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, weights in self.weights.items():
            weights.copy_(state[name])
