"""RANK. The same collectives over torch.distributed: Gloo between CPUs, NCCL between GPUs, nothing to compile."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.config.training import CollectiveName
from pipeline.training.collective import Handle, TensorCollective, lost_peers

# Gloo carries no 16-bit integers.
_CARRIED_AS_BYTES = (torch.int16,)


class TorchCollective(TensorCollective):
    """Process groups of torch.distributed.

    Args:
        rank: of this process.
        world_size: number of ranks.
        local_rank: among the ranks of this host.
        store: host and port of the `torch.distributed.TCPStore` where the ranks find each other.
        timeout_seconds: after which a rank that does not answer is given up.

    Raises:
        LostPeersError: another rank is gone; raised by whichever operation notices.
    """

    name: CollectiveName = "torch"

    def __init__(
        self, rank: int, world_size: int, local_rank: int, store: tuple[str, int], *, timeout_seconds: float = 300.0
    ) -> None:
        self.rank, self.world_size, self.local_rank = rank, world_size, local_rank
        timeout = datetime.timedelta(seconds=timeout_seconds)
        with lost_peers("start"):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo",
                store=dist.TCPStore(*store, timeout=timeout),  # type: ignore[attr-defined]
                rank=rank,
                world_size=world_size,
                timeout=timeout,
            )

    def sum_async(self, tensor: Tensor, name: str) -> Handle:
        self._count(tensor, 2.0 / self.world_size)
        with lost_peers(name):
            return _TorchHandle(dist.all_reduce(tensor, async_op=True), tensor, name)

    def exchange_async(self, tensor: Tensor, name: str) -> Handle:
        """See `Collective`."""
        self._count(tensor, 1.0 / self.world_size)
        sent = _carried(tensor)
        received = torch.empty_like(sent)
        with lost_peers(name):
            work = dist.all_to_all_single(received, sent, async_op=True)
        return _TorchHandle(work, received.view(tensor.dtype), name)

    def gather_async(self, tensor: Tensor, name: str) -> Handle:
        self._count(tensor, 1.0)
        sent = _carried(tensor.reshape(-1))
        rows = sent.new_empty(self.world_size, sent.numel())
        with lost_peers(name):
            work = dist.all_gather(list(rows.unbind()), sent, async_op=True)
        return _TorchHandle(work, rows.view(tensor.dtype), name)

    def broadcast_(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        with lost_peers("broadcast"):
            for work in [dist.broadcast(tensor, root, async_op=True) for tensor in tensors]:
                work.wait()

    def close(self) -> None:
        """See `Collective`."""
        dist.destroy_process_group()


class _TorchHandle:
    def __init__(self, work: Any, result: Tensor, name: str) -> None:
        self._work = work
        self._result = result
        self._name = name

    def wait(self) -> Tensor:
        if self._work is not None:
            with lost_peers(self._name):
                self._work.wait()
            self._work = None
        return self._result


def _carried(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8) if tensor.dtype in _CARRIED_AS_BYTES else tensor.contiguous()
