"""RANK. The same collectives between ranks of one host, over memory that they share instead of its network stack.

Each rank writes a tensor into memory that the others read, and tells them where. Whoever waits for an operation reads
what all ranks wrote for it and combines that itself, in the order of ranks, so all get the same bits. That takes one
copy and one short message, and no thread besides the ranks' own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pipeline.config.training import MOST_RANKS_IN_MEMORY
from pipeline.training.collective import Collective, Handle, TensorCollective, lost_peers
from pipeline.training.host_meeting import Found, meet
from pipeline.training.host_memory import Blocks, Memory
from pipeline.training.host_peers import Peers, Writer, Written

Combine = Callable[[list[Tensor]], Tensor]


def share_memory(collective: Collective, timeout_seconds: float) -> Collective:
    """The same ranks over memory that they share, where that can be had; else ``collective`` itself.

    It can be had where all ranks run on one Linux host, in one network namespace, as one user, and are at most eight.
    ``collective``, which has brought them together, is closed then.

    Args:
        collective: that all the ranks are in.
        timeout_seconds: after which a rank that does not answer is given up.
    """
    if not 1 < collective.world_size <= MOST_RANKS_IN_MEMORY:
        return collective
    met = meet(collective)
    if met is None:
        return collective
    collective.close()
    return SharedMemoryCollective(collective, *met, timeout_seconds)


class SharedMemoryCollective(TensorCollective):
    """Ranks of one host that write for each other into memory.

    What is written stays until every rank has said that it has read it; a rank that is ahead takes another block of
    its memory instead of waiting.

    Args:
        together: whose ranks they are; not used any more.
        own: the memory of this rank.
        others: line and memory of each other rank.
        timeout_seconds: after which a rank that does not answer is given up.

    Raises:
        LostPeersError: another rank is gone or silent; raised by whichever operation notices.
    """

    shares_memory = True

    def __init__(self, together: Collective, own: Memory, others: Found, timeout_seconds: float) -> None:
        self.name = together.name
        self.rank, self.world_size, self.local_rank = together.rank, together.world_size, together.local_rank
        self._own = Writer(own)
        self._blocks = Blocks(own)
        self._peers = Peers(others, timeout_seconds)
        self._writers = [self._own if rank == self.rank else self._peers[rank] for rank in range(self.world_size)]
        self._unread: set[int] = set()

    def sum_async(self, tensor: Tensor, name: str) -> Handle:
        """See `Collective`; the tensor must be contiguous."""
        if not tensor.is_contiguous():
            raise ValueError(f"the tensor of the sum {name!r} is not contiguous; expected one; call contiguous() on it")

        def add(parts: list[Tensor]) -> Tensor:
            first, second, *others = (part.view(tensor.dtype) for part in parts)
            with torch.inference_mode():  # of which the tensor may be, and else a parameter
                total = torch.add(first, second, out=tensor.view(-1))
                for other in others:
                    total.add_(other)
            return tensor

        self._count(tensor, 2.0 / self.world_size)
        return self._start(tensor, add, f"sum of {tensor.numel()} {tensor.dtype}", name)

    def exchange_async(self, tensor: Tensor, name: str) -> Handle:
        """See `Collective`."""

        def pick(parts: list[Tensor]) -> Tensor:
            return torch.stack([part.view(tensor.dtype).view(tensor.shape)[self.rank] for part in parts])

        self._count(tensor, 1.0 / self.world_size)
        return self._start(tensor, pick, f"exchange of {tuple(tensor.shape)} {tensor.dtype}", name)

    def gather_async(self, tensor: Tensor, name: str) -> Handle:
        """See `Collective`."""

        def stack(parts: list[Tensor]) -> Tensor:
            return torch.stack([part.view(tensor.dtype) for part in parts])

        self._count(tensor, 1.0)
        return self._start(tensor, stack, f"gathering of {tensor.numel()} {tensor.dtype}", name)

    def broadcast_(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        """See `Collective`."""
        for number, tensor in enumerate(tensors):
            sent = tensor if self.rank == root else tensor.new_empty(0)
            handle = self._start(sent, lambda parts: parts[root].clone(), f"broadcast from {root}", f"tensor {number}")
            received = handle.wait()
            if self.rank != root:
                with torch.inference_mode():
                    tensor.copy_(received.view(tensor.dtype).view(tensor.shape))

    def close(self) -> None:
        """See `Collective`."""
        self._peers.close()
        self._own.close()

    def combined(self, operation: int, combine: Combine, name: str) -> Tensor:
        """What all ranks have written for an operation, combined; waits for them.

        Raises:
            ValueError: the ranks are out of step.
        """
        with lost_peers(name):
            self._peers.wait_for(operation)
        if len({writer.kind(operation) for writer in self._writers}) > 1:
            raise ValueError(
                f"the collective {name!r} of rank {self.rank} is not what another rank does; expected the same "
                "operations in the same order, with tensors of one size and dtype, on all ranks"
            )
        result = combine([writer.part(operation) for writer in self._writers])
        for writer in self._writers:
            writer.forget(operation)
        self._unread.discard(operation)
        return result

    def _start(self, tensor: Tensor, combine: Combine, kind: str, name: str) -> Handle:
        """Write for the others and tell them."""
        content = tensor.detach().reshape(-1).view(torch.uint8)
        operation = self._own.last + 1
        self._unread.add(operation)
        read = min(self._unread) - 1
        offset = self._blocks.take(content.numel(), operation, min(read, self._peers.read))
        written = Written(offset, content.numel(), zlib.crc32(kind.encode()))
        self._own.note(written)
        self._own.part(operation).copy_(content)
        with lost_peers(name):
            self._peers.tell(written, read)
        return _SharedHandle(self, operation, combine, name)


class _SharedHandle:
    def __init__(self, collective: SharedMemoryCollective, operation: int, combine: Combine, name: str) -> None:
        self._collective = collective
        self._operation = operation
        self._combine = combine
        self._name = name
        self._result: Tensor | None = None

    def wait(self) -> Tensor:
        if self._result is None:
            self._result = self._collective.combined(self._operation, self._combine, self._name)
        return self._result
