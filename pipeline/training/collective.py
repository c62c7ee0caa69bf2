"""RANK. The few collective operations that training needs; everything above cannot tell who carries them out.

The only module that imports ``horovod.torch``. A collective knows nothing of models or optimizers, and what is
built on it (`pipeline.training.gradients`) therefore works alike over Horovod, over one process, or over another.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.config.training import CollectiveName
from pipeline.errors import LostPeersError

_POLL_SECONDS = 0.0002

# Horovod's tensor fusion adds up whatever tensors are ready in the same cycle, and so the order of additions, and
# with it the last bits, differ from run to run. No second tuned value may be set (HOROVOD_CYCLE_TIME is the other
# one): with both fixed, `hvd.init` crashes the second time in a process (index into an empty vector, horovod 0.28.1,
# common/parameter_manager.cc BayesianParameter::SetValue), and Spark reuses its Python workers. HOROVOD_AUTOTUNE
# fixes both on every rank but the first (ParameterManager::SetParams), which is why it is not offered.
HOROVOD_SETTINGS = {"HOROVOD_FUSION_THRESHOLD": "0"}


class Handle(Protocol):
    """A collective operation under way. Somebody must wait for each: until then what it takes is not used again."""

    def wait(self) -> Tensor:
        """Block until it is done; its result. May be called again."""


class Collective(Protocol):
    """What ranks do together. All ranks call the same operations in the same order.

    Attributes:
        name: what carries it.
        shares_memory: whether the ranks exchange through the memory of their one host.
        bytes_sent: payload that this rank has sent so far, as a ring algorithm sends it.
    """

    name: CollectiveName
    shares_memory: bool
    rank: int
    world_size: int
    local_rank: int
    bytes_sent: int

    def sum_async(self, tensor: Tensor, name: str) -> Handle:
        """Start to replace ``tensor`` on every rank by the sum over all ranks, bit-equal on all of them."""

    def exchange_async(self, tensor: Tensor, name: str) -> Handle:
        """Start to send row r of ``tensor`` (world_size x n) to rank r; the result's row r came from rank r."""

    def gather_async(self, tensor: Tensor, name: str) -> Handle:
        """Start to give every rank the flat tensors of all ranks: the result is world_size x n."""

    def sum(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum of the arrays of all ranks; integers are exact."""

    def broadcast_(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        """Overwrite the tensors by those of ``root``."""

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        """The JSON value that ``root`` passed, on every rank."""

    def gather_objects(self, value: Any) -> list[Any]:
        """The JSON values of all ranks, by rank, on every rank."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def close(self) -> None:
        """Give connections back; nothing may be called afterwards."""


class _Done:
    """A handle of something that is done already."""

    def __init__(self, result: Tensor) -> None:
        self._result = result

    def wait(self) -> Tensor:
        return self._result


class SoloCollective:
    """One process alone: every operation is the identity."""

    name: CollectiveName = "none"
    shares_memory = False
    rank = 0
    world_size = 1
    local_rank = 0
    bytes_sent = 0

    def sum_async(self, tensor: Tensor, name: str) -> Handle:
        return _Done(tensor)

    def exchange_async(self, tensor: Tensor, name: str) -> Handle:
        return _Done(tensor)

    def gather_async(self, tensor: Tensor, name: str) -> Handle:
        return _Done(tensor.reshape(1, -1))

    def sum(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array

    def broadcast_(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        return

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        return value

    def gather_objects(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        return

    def close(self) -> None:
        return


class TensorCollective(ABC):
    """What can be said in terms of tensors, whoever carries them."""

    name: CollectiveName
    shares_memory = False
    rank: int
    world_size: int
    local_rank: int
    bytes_sent: int = 0

    @abstractmethod
    def sum_async(self, tensor: Tensor, name: str) -> Handle:
        """See `Collective`."""

    @abstractmethod
    def gather_async(self, tensor: Tensor, name: str) -> Handle:
        """See `Collective`."""

    @abstractmethod
    def broadcast_(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        """See `Collective`."""

    def sum(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        tensor = torch.from_numpy(np.ascontiguousarray(array).copy())
        return self.sum_async(tensor, f"sum {tensor.dtype} {tuple(tensor.shape)}").wait().numpy()

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        data = json.dumps(value).encode() if self.rank == root else b""
        size = int(self.sum(np.array([len(data)]))[0])
        payload = _as_bytes(data, size)
        self.broadcast_([payload], root)
        return json.loads(payload.numpy().tobytes())

    def gather_objects(self, value: Any) -> list[Any]:
        data = json.dumps(value).encode()
        sizes = self.gather_async(torch.tensor([len(data)]), "sizes of objects").wait().flatten().tolist()
        rows = self.gather_async(_as_bytes(data, max(sizes)), f"objects {max(sizes)}").wait().numpy()
        return [json.loads(row.tobytes()[:size]) for row, size in zip(rows, sizes, strict=True)]

    def barrier(self) -> None:
        self.sum(np.zeros(1))

    def _count(self, tensor: Tensor, factor: float) -> None:
        self.bytes_sent += int(tensor.numel() * tensor.element_size() * factor * (self.world_size - 1))


class HorovodCollective(TensorCollective):
    """Horovod's Gloo rings between the ranks that a launcher has started.

    The launcher sets the ``HOROVOD_*`` environment of rank and rendezvous; ours is added for the time of
    the initialization and taken back.

    Raises:
        LostPeersError: another rank is gone; raised by whichever operation notices.
    """

    name: CollectiveName = "horovod"

    def __init__(self) -> None:
        import horovod.torch as hvd

        self._hvd = hvd
        with _environment(HOROVOD_SETTINGS), lost_peers("start"):
            hvd.init()
        self._has_timeline = "HOROVOD_TIMELINE" in os.environ
        self.rank: int = hvd.rank()
        self.world_size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()

    def sum_async(self, tensor: Tensor, name: str) -> Handle:
        self._count(tensor, 2.0 / self.world_size)
        return self._start(self._hvd.allreduce_async_, tensor, name, op=self._hvd.Sum)

    def exchange_async(self, tensor: Tensor, name: str) -> Handle:
        self._count(tensor, 1.0 / self.world_size)
        return self._start(self._hvd.alltoall_async, tensor, name)

    def gather_async(self, tensor: Tensor, name: str) -> Handle:
        self._count(tensor, 1.0)
        return self._start(self._hvd.allgather_async, tensor.reshape(1, -1), name)

    def broadcast_(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        with lost_peers("broadcast"):
            handles = [
                self._hvd.broadcast_async_(tensor, root, name=f"broadcast {i}") for i, tensor in enumerate(tensors)
            ]
            for handle in handles:
                self._hvd.synchronize(handle)

    def close(self) -> None:
        if self._has_timeline:
            # Waits until all is written; a rest in its queue would keep the next timeline of this process shut.
            self._hvd.stop_timeline()
        self._hvd.shutdown()

    def _start(self, operation: Any, tensor: Tensor, name: str, **options: Any) -> Handle:
        with lost_peers(name):
            return _HorovodHandle(self._hvd, operation(tensor, name=name, **options), name)


class _HorovodHandle:
    def __init__(self, hvd: Any, handle: int, name: str) -> None:
        self._hvd = hvd
        self._handle = handle
        self._name = name
        self._result: Tensor | None = None

    def wait(self) -> Tensor:
        if self._result is None:
            with lost_peers(self._name):
                # `synchronize` alone would spin, and take the core from Horovod's own threads, which do the work.
                while not self._hvd.poll(self._handle):
                    time.sleep(_POLL_SECONDS)
                result = self._hvd.synchronize(self._handle)
            self._result = result[0] if isinstance(result, tuple) else result  # alltoall gives its splits too
        return self._result


def _as_bytes(data: bytes, size: int) -> Tensor:
    """The bytes in a tensor of ``size``, zeros behind them."""
    payload = torch.zeros(max(size, 1), dtype=torch.uint8)
    payload[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else payload[:0]
    return payload


@contextlib.contextmanager
def lost_peers(what: str) -> Iterator[None]:
    """An operation fails when another rank has died: not the cause, only the news of it."""
    try:
        yield
    except (RuntimeError, OSError) as error:  # HorovodInternalError is a RuntimeError
        raise LostPeersError(
            f"the collective {what!r} has failed because another rank is gone; "
            f"expected all ranks to live; run the same command again to resume ({error})"
        ) from error


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set, for the length of a block."""
    added = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]
