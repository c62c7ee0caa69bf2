"""RANK. What layers such as batch norm keep beside their weights becomes alike on all ranks after each step."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.training.collective import Collective


class SharedBuffers:
    """The floating-point buffers of a model; those that a step has changed on some rank become their mean.

    All others stay as they are to the bit: masks, tables, constants. Each rank gives its part of the mean in float64,
    so that no sum overflows, and narrower numbers on which ranks agree stay what they are.

    Args:
        model: alike on all ranks.
        collective: the ranks.
    """

    def __init__(self, model: torch.nn.Module, collective: Collective) -> None:
        self._model, self._collective = model, collective
        self._travelling: set[str] = set()  # what has changed before, and so travels with the question what has now
        self._before: dict[str, Tensor] = {}
        self.keep()

    def keep(self) -> None:
        """What the buffers hold now is what later steps are compared with."""
        if self._collective.world_size > 1:
            self._before = {name: buffer.clone() for name, buffer in self._current().items()}

    def share(self) -> None:
        """After a step, on all ranks."""
        if self._collective.world_size == 1 or not (current := self._current()):
            return
        known = [name for name in current if name in self._travelling]
        flags = torch.tensor([self._has_changed(name, buffer) for name, buffer in current.items()], dtype=torch.float64)
        some = next(iter(current.values()))
        votes, *means = self._means([flags.to(some.device), *(current[name] for name in known)], "buffers")
        changed = [name for name, vote in zip(current, votes.tolist(), strict=True) if vote]
        if new := [name for name in changed if name not in self._travelling]:
            self._travelling.update(new)
            means += self._means([current[name] for name in new], "new buffers")
        for name, mean in zip([*known, *new], means, strict=True):
            if name in changed:
                current[name].copy_(mean)
                self._before[name] = current[name].clone()

    def _current(self) -> dict[str, Tensor]:
        return {name: buffer for name, buffer in self._model.named_buffers() if buffer.is_floating_point()}

    def _has_changed(self, name: str, buffer: Tensor) -> bool:
        return name not in self._before or not torch.equal(buffer, self._before[name])

    def _means(self, tensors: list[Tensor], name: str) -> list[Tensor]:
        flat = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors]) / self._collective.world_size
        flat = self._collective.sum_async(flat, name).wait()
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
