"""Ranks as threads of one process: collectives for tests that need several ranks but no processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from pipeline.training.collective import SoloCollective


class _Board:
    """Where the ranks of one job put their contributions."""

    def __init__(self, world_size: int) -> None:
        self.barrier = threading.Barrier(world_size, timeout=60)
        self.values: list[Any] = [None] * world_size


class _Done:
    def __init__(self, result: torch.Tensor) -> None:
        self._result = result

    def wait(self) -> torch.Tensor:
        return self._result


class ThreadCollective(SoloCollective):
    """Every operation is done at once, in rank order."""

    def __init__(self, rank: int, board: _Board) -> None:
        self.rank = self.local_rank = rank
        self.world_size = len(board.values)
        self._board = board
        self.names: list[str] = []

    def _all(self, value: Any, name: str) -> list[Any]:
        self.names.append(name)
        self._board.values[self.rank] = value
        self._board.barrier.wait()
        values = list(self._board.values)
        self._board.barrier.wait()
        return values

    def sum_async(self, tensor: torch.Tensor, name: str) -> _Done:
        values = self._all(tensor.clone(), name)
        tensor.copy_(torch.stack(values).sum(0))
        return _Done(tensor)

    def exchange_async(self, tensor: torch.Tensor, name: str) -> _Done:
        return _Done(torch.stack([value[self.rank] for value in self._all(tensor.clone(), name)]))

    def gather_async(self, tensor: torch.Tensor, name: str) -> _Done:
        return _Done(torch.stack([value.reshape(-1) for value in self._all(tensor.clone(), name)]))

    def sum(self, array: np.ndarray) -> np.ndarray:
        return np.sum(self._all(array.copy(), "sum"), axis=0)

    def broadcast_(self, tensors: Iterable[torch.Tensor], root: int = 0) -> None:
        for tensor in tensors:
            tensor.copy_(self._all(tensor.clone(), "broadcast")[root])

    def broadcast_object(self, value: Any, root: int = 0) -> Any:
        return self._all(value, "broadcast object")[root]

    def gather_objects(self, value: Any) -> list[Any]:
        return self._all(value, "gather objects")

    def barrier(self) -> None:
        self._all(None, "barrier")


def on_thread_ranks(world_size: int, body: Callable[[ThreadCollective], Any]) -> list[Any]:
    """What ``body`` gives on each rank."""
    board = _Board(world_size)
    results: list[Any] = [None] * world_size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = body(ThreadCollective(rank, board))
        except BaseException as error:
            errors.append(error)
            board.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    causes = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    if causes or errors:
        raise (causes or errors)[0]
    return results
