"""RANK. Batches on the device where the model is: on a GPU each one is copied while the one before is computed with.

Rows are gathered into pinned memory, copied on a stream of their own one batch ahead, and unpacked there; whoever
takes a batch waits on the GPU for the copy, not on the processor. Not tried on a GPU yet: the tests run the same
steps on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch

from pipeline.training.batches import Batch

Host = TypeVar("Host")
Ticket = TypeVar("Ticket")


class Lane(Protocol[Ticket]):
    """How batches get to a device."""

    pinned: bool

    def start(self, unpack: Callable[[], Batch]) -> tuple[Batch, Ticket]:
        """Begin to copy and unpack a batch; its tensors may be used after `finish`."""

    def finish(self, batch: Batch, ticket: Ticket) -> Batch:
        """The batch, ready for what its taker does next."""


class CudaLane:
    """A stream beside the one that computes."""

    pinned = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def start(self, unpack: Callable[[], Batch]) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            return unpack(), self._stream.record_event()

    def finish(self, batch: Batch, ticket: torch.cuda.Event) -> Batch:
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(ticket)
        for tensor in batch.tensors():
            tensor.record_stream(computing)  # or its memory might be used again before it has been computed with
        return batch


def lane_to(device: torch.device) -> Lane[torch.cuda.Event] | None:
    """The way to a device; None if there is nothing to do."""
    return CudaLane(device) if device.type == "cuda" else None


def one_ahead(hosts: Iterator[Host], unpack: Callable[[Host], Batch], lane: Lane[Ticket]) -> Iterator[Batch]:
    """Unpacked batches; when one is given, the copy of the next one has begun."""
    waiting: tuple[Batch, Ticket] | None = None
    for host in hosts:
        following = lane.start(lambda host=host: unpack(host))  # type: ignore[misc]
        if waiting is not None:
            yield lane.finish(*waiting)
        waiting = following
    if waiting is not None:
        yield lane.finish(*waiting)
