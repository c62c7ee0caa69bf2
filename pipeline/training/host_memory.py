"""RANK. Memory of one host in which a rank writes for the others.

It has no name (memfd_create, which is Linux's), so ranks that are killed leave nothing behind.
"""

from __future__ import annotations

import mmap
import os
from collections import deque

import torch
from torch import Tensor

_SMALLEST_BLOCK = 4096


class Memory:
    """Nameless memory that grows at its end, as one of the processes that map it sees it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def grow(self, size: int) -> None:
        """Make it so long; what is not written yet takes no room."""
        os.ftruncate(self.descriptor, size)

    def part(self, offset: int, size: int) -> Tensor:
        """A window of bytes."""
        if offset + size > self._bytes.numel():
            self._bytes = torch.frombuffer(mmap.mmap(self.descriptor, 0), dtype=torch.uint8)
        return self._bytes[offset : offset + size]

    def close(self) -> None:
        """Give it back; windows that are still held stay good."""
        self._bytes = torch.empty(0, dtype=torch.uint8)
        os.close(self.descriptor)


class Blocks:
    """Which parts of this rank's memory are free."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._end = 0
        self._used: dict[int, deque[tuple[int, int]]] = {}  # by size: offset and operation, oldest first

    def take(self, size: int, operation: int, read_by_all: int) -> int:
        """The offset of a block for an operation: one that all ranks have read, if there is any, else a new one."""
        size = max(_SMALLEST_BLOCK, 1 << (size - 1).bit_length())
        used = self._used.setdefault(size, deque())
        if used and used[0][1] <= read_by_all:
            offset, _ = used.popleft()
        else:
            offset, self._end = self._end, self._end + size
            self._memory.grow(self._end)
        used.append((offset, operation))
        return offset
