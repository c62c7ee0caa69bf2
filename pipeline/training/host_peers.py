"""RANK. Ranks of one host: how they find each other, the memory in which each writes for all, and the lines between.

The memory has no name (memfd_create) and the sockets have none in the file system, so ranks that are killed leave
nothing behind. Both are Linux's.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import uuid
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.training.collective import Collective

_SMALLEST_BLOCK = 4096
_MEETING_SECONDS = 10.0
_GREETING = struct.Struct("<Q")
# Offset and bytes of what an operation's rank has written; the operation up to which it has read what others wrote.
_MESSAGE = struct.Struct("<QQQ")
_CREDENTIALS = struct.Struct("iII")  # process, user, group: unix(7), SO_PEERCRED

Result = TypeVar("Result")


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


class Writer:
    """What a rank has written: where in its memory each operation's tensor lies, until it is forgotten."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._noted = 0
        self._where: dict[int, tuple[int, int]] = {}

    def note(self, offset: int, size: int) -> None:
        """The tensor of its next operation lies there."""
        self._noted += 1
        self._where[self._noted] = (offset, size)

    def part(self, operation: int) -> Tensor:
        """The bytes of an operation's tensor."""
        return self._memory.part(*self._where[operation])

    def forget(self, operation: int) -> None:
        """They have been read."""
        del self._where[operation]

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


class Peer(Writer):
    """Another rank of this host, and the line to it.

    Attributes:
        read: the operation up to which it has read what others wrote.

    Raises:
        OSError: it is gone, or silent for too long.
    """

    def __init__(self, line: socket.socket, memory: Memory, timeout_seconds: float) -> None:
        super().__init__(memory)
        self.read = 0
        self._line = line
        self._line.setblocking(False)
        self._timeout_seconds = timeout_seconds
        self._incoming = select.poll()
        self._incoming.register(line, select.POLLIN)

    def tell(self, offset: int, size: int, read: int) -> bool:
        """Say where this rank has written and what it has read; False where the line is full."""
        try:
            return bool(self._line.send(_MESSAGE.pack(offset, size, read)))
        except BlockingIOError:
            return False

    def listen(self) -> bool:
        """Take one message; False where there is none."""
        try:
            message = self._line.recv(_MESSAGE.size)
        except BlockingIOError:
            return False
        if not message:
            raise ConnectionResetError("it has closed its line")
        offset, size, self.read = _MESSAGE.unpack(message)
        self.note(offset, size)
        return True

    def wait_for(self, operation: int) -> None:
        """Until it has written for an operation."""
        while self._noted < operation:
            if not self.listen() and not self._incoming.poll(self._timeout_seconds * 1000):
                raise TimeoutError(f"it has written nothing for {self._timeout_seconds:g} s")

    def close(self) -> None:
        """Hang up."""
        super().close()
        self._line.close()


Found = dict[int, tuple[socket.socket, Memory]]


def meet(collective: Collective) -> tuple[Memory, Found] | None:
    """Memory of this rank, and line and memory of each other rank; on all ranks None where one cannot reach another.

    Each step of all ranks ends before the next begins, so whoever calls finds a listener and whoever accepts finds a
    caller: ranks of different hosts learn at once that they are apart.
    """
    name = f"pipeline-{collective.broadcast_object(uuid.uuid4().hex)}"
    try:
        with contextlib.ExitStack() as opened:
            own, listener = _on_all(collective, lambda: _listen(_address(name, collective.rank), opened))
            lines = _on_all(collective, lambda: _call_lower(name, collective.rank, own, opened))
            higher = collective.world_size - 1 - collective.rank
            callers = _on_all(collective, lambda: _accept(listener, higher, own, opened))
            memories = _on_all(collective, lambda: {rank: _greeted(line, opened)[1] for rank, line in lines.items()})
            opened.pop_all()
    except _ApartError:
        return None
    listener.close()
    return own, {rank: (line, memories[rank]) for rank, line in lines.items()} | callers


class _ApartError(Exception):
    """A step has failed on some rank."""


def _on_all(collective: Collective, step: Callable[[], Result]) -> Result:
    """What a step gives, if it succeeds on every rank."""
    results: list[Result] = []
    with contextlib.suppress(OSError):
        results.append(step())
    if not all(collective.gather_objects(len(results))):
        raise _ApartError
    return results[0]


def _address(name: str, rank: int) -> str:
    """Linux keeps names that begin with a zero in the network namespace, not as files."""
    return f"\0{name}-{rank}"


def _line(opened: contextlib.ExitStack) -> socket.socket:
    """A socket that keeps messages apart."""
    line = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    line.settimeout(_MEETING_SECONDS)
    return line


def _listen(address: str, opened: contextlib.ExitStack) -> tuple[Memory, socket.socket]:
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memory without a name")
    own = Memory(os.memfd_create("pipeline"))
    opened.callback(own.close)
    listener = _line(opened)
    listener.bind(address)
    listener.listen()
    return own, listener


def _call_lower(name: str, rank: int, own: Memory, opened: contextlib.ExitStack) -> dict[int, socket.socket]:
    lines = {}
    for lower in range(rank):
        lines[lower] = _line(opened)
        lines[lower].connect(_address(name, lower))
        _greet(lines[lower], rank, own)
    return lines


def _accept(listener: socket.socket, callers: int, own: Memory, opened: contextlib.ExitStack) -> Found:
    found = {}
    for _ in range(callers):
        line = opened.enter_context(listener.accept()[0])
        _, user, _ = _CREDENTIALS.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user != os.getuid():
            raise PermissionError("another user has called")
        line.settimeout(_MEETING_SECONDS)
        rank, memory = _greeted(line, opened)
        found[rank] = (line, memory)
        _greet(line, rank, own)
    return found


def _greet(line: socket.socket, rank: int, own: Memory) -> None:
    """Hand the other end this rank's number and memory."""
    socket.send_fds(line, [_GREETING.pack(rank)], [own.descriptor])


def _greeted(line: socket.socket, opened: contextlib.ExitStack) -> tuple[int, Memory]:
    """Number and memory of the rank at the other end."""
    message, descriptors, _, _ = socket.recv_fds(line, _GREETING.size, 1)
    if not descriptors:
        raise ConnectionResetError("it has sent no memory")
    memory = Memory(descriptors[0])
    opened.callback(memory.close)
    return _GREETING.unpack(message)[0], memory
