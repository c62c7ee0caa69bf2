"""RANK. The loader that a user's own loop gets: as any other, but each batch is a sign that the loop is at work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, cast

import torch

from pipeline.training.batches import Batch
from pipeline.training.loader import Loader


class OwnLoader(Loader):
    """A `Loader` of a loop from code.

    Args:
        alive: called for each batch, so that reading a split for longer than the deadline of a step is no hang.
        dtype: of floating-point inputs, label and weight.
        options: those of `Loader`.
    """

    def __init__(self, alive: Callable[[], None], dtype: torch.dtype, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._alive, self._dtype = alive, dtype

    def __iter__(self) -> Iterator[Batch]:
        with contextlib.closing(cast("Generator[Batch, None, None]", super().__iter__())) as batches:
            for batch in batches:
                self._alive()
                yield batch if self._dtype == torch.float32 else _as(self._dtype, batch)


def _as(dtype: torch.dtype, batch: Batch) -> Batch:
    def converted(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    inputs = {name: converted(tensor) for name, tensor in batch.inputs.items()}
    weight = None if batch.weight is None else converted(batch.weight)
    return replace(batch, inputs=inputs, label=converted(batch.label), weight=weight)
