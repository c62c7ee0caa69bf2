"""RANK. The same collectives between ranks of one host, over memory that they share instead of its network stack.

Each rank writes a tensor into memory that the others read, and tells them where. Whoever waits for an operation reads
what all ranks wrote for it and combines that itself, in the order of ranks, so all get the same bits. That takes one
copy and one short message, and no thread besides the ranks' own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pipeline.training.collective import Collective, Handle, TensorCollective, lost_peers
from pipeline.training.host_peers import Blocks, Found, Memory, Peer, Writer, meet

# Every rank reads what all have written: traffic grows with the square of their number, that of a ring does not.
_MOST_RANKS = 8
_FULL_LINE_SECONDS = 0.0002

Combine = Callable[[list[Tensor]], Tensor]


def share_memory(collective: Collective, timeout_seconds: float) -> Collective:
    """The same ranks over memory that they share, where that can be had; else ``collective`` itself.

    It can be had where all ranks run on one Linux host, in one network namespace, as one user, and are at most eight.
    ``collective``, which has brought them together, is closed then.

    Args:
        collective: that all the ranks are in.
        timeout_seconds: after which a rank that does not answer is given up.
    """
    if not 1 < collective.world_size <= _MOST_RANKS:
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
        self._timeout_seconds = timeout_seconds
        self._own = Writer(own)
        self._blocks = Blocks(own)
        self._peers = [Peer(*others[rank], timeout_seconds) for rank in sorted(others)]
        self._writers = [*self._peers[: self.rank], self._own, *self._peers[self.rank :]]
        self._started = 0
        self._unread: set[int] = set()

    def sum_async(self, tensor: Tensor, name: str) -> Handle:
        def add(parts: list[Tensor]) -> Tensor:
            first, second, *others = (part.view(tensor.dtype) for part in parts)
            total = torch.add(first, second, out=tensor.view(-1))
            for other in others:
                total.add_(other)
            return tensor

        self._count(tensor, 2.0 / self.world_size)
        return self._start(tensor, add, name)

    def exchange_async(self, tensor: Tensor, name: str) -> Handle:
        """See `Collective`."""

        def pick(parts: list[Tensor]) -> Tensor:
            return torch.stack([part.view(tensor.dtype).view(tensor.shape)[self.rank] for part in parts])

        self._count(tensor, 1.0 / self.world_size)
        return self._start(tensor, pick, name)

    def gather_async(self, tensor: Tensor, name: str) -> Handle:
        self._count(tensor, 1.0)
        return self._start(tensor, lambda parts: torch.stack([part.view(tensor.dtype) for part in parts]), name)

    def broadcast_(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        for number, tensor in enumerate(tensors):
            sent = tensor if self.rank == root else tensor.new_empty(0)
            handle = self._start(sent, lambda parts: parts[root].clone(), f"broadcast {number}")
            tensor.copy_(handle.wait().view(tensor.dtype).view(tensor.shape))

    def close(self) -> None:
        """See `Collective`."""
        for writer in self._writers:
            writer.close()

    def combined(self, operation: int, combine: Combine, name: str) -> Tensor:
        """What all ranks have written for an operation, combined; waits for them."""
        with lost_peers(name):
            for peer in self._peers:
                peer.wait_for(operation)
        result = combine([writer.part(operation) for writer in self._writers])
        for writer in self._writers:
            writer.forget(operation)
        self._unread.discard(operation)
        return result

    def _start(self, tensor: Tensor, combine: Combine, name: str) -> Handle:
        """Write for the others and tell them."""
        content = tensor.detach().reshape(-1).view(torch.uint8)
        self._started += 1
        self._unread.add(self._started)
        read = min(self._unread) - 1
        offset = self._blocks.take(content.numel(), self._started, min(read, *(peer.read for peer in self._peers)))
        self._own.note(offset, content.numel())
        self._own.part(self._started).copy_(content)
        with lost_peers(name):
            for peer in self._peers:
                self._tell(peer, offset, content.numel(), read)
        return _SharedHandle(self, self._started, combine, name)

    def _tell(self, peer: Peer, offset: int, size: int, read: int) -> None:
        """Its line may be full because it waits for us to listen: doing so lets both go on."""
        deadline = time.monotonic() + self._timeout_seconds
        while not peer.tell(offset, size, read):
            if time.monotonic() > deadline:
                raise TimeoutError(f"it has listened to nothing for {self._timeout_seconds:g} s")
            for other in self._peers:
                while other.listen():
                    pass
            time.sleep(_FULL_LINE_SECONDS)


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
