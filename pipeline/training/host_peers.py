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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.training.collective import Collective

_SMALLEST_BLOCK = 4096
_MEETING_SECONDS = 10.0
_GREETING = struct.Struct("<Q")
# What the sender has written for its next operation, and the operation up to which it has read everything.
_MESSAGE = struct.Struct("<QQQQ")
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


Found = dict[int, tuple[socket.socket, Memory]]


@dataclass(frozen=True)
class Written:
    """Where the tensor of one operation lies in its writer's memory, and of which kind the operation is."""

    offset: int
    size: int
    kind: int


class Writer:
    """What a rank has written for each operation, until it is forgotten."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._written: dict[int, Written] = {}
        self.last = 0

    def note(self, written: Written) -> None:
        """The tensor of its next operation lies there."""
        self.last += 1
        self._written[self.last] = written

    def kind(self, operation: int) -> int:
        """The kind of an operation."""
        return self._written[operation].kind

    def part(self, operation: int) -> Tensor:
        """The bytes of an operation's tensor."""
        written = self._written[operation]
        return self._memory.part(written.offset, written.size)

    def forget(self, operation: int) -> None:
        """They have been read."""
        del self._written[operation]

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


class Peer(Writer):
    """Another rank of this host, and the line to it.

    Attributes:
        read: the operation up to which it has read everything.
        gone: whether it has hung up.
    """

    def __init__(self, line: socket.socket, memory: Memory) -> None:
        super().__init__(memory)
        self.read = 0
        self.gone = False
        self.line = line
        self.line.setblocking(False)

    def tell(self, written: Written, read: int) -> bool:
        """Say what this rank has written and read; False where the line is full."""
        try:
            return bool(self.line.send(_MESSAGE.pack(written.offset, written.size, written.kind, read)))
        except BlockingIOError:
            return False

    def listen(self) -> bool:
        """Take one message; False where there is none."""
        try:
            message = b"" if self.gone else self.line.recv(_MESSAGE.size)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            message = b""
        self.gone = not message
        if message:
            offset, size, kind, self.read = _MESSAGE.unpack(message)
            self.note(Written(offset, size, kind))
        return bool(message)

    def close(self) -> None:
        """Hang up, also where a child process has inherited the line."""
        super().close()
        with contextlib.suppress(OSError):
            self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()


class Peers:
    """All other ranks. Whoever waits for one of them listens to all, so that no line stays full.

    Args:
        found: line and memory of each.
        timeout_seconds: of silence, after which a rank is given up.
    """

    def __init__(self, found: Found, timeout_seconds: float) -> None:
        self._peers = {rank: Peer(*one) for rank, one in found.items()}
        self._timeout_seconds = timeout_seconds
        self._incoming = select.poll()
        for peer in self:
            self._incoming.register(peer.line, select.POLLIN)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __getitem__(self, rank: int) -> Peer:
        return self._peers[rank]

    @property
    def read(self) -> int:
        """The operation up to which all of them have read everything."""
        return min(peer.read for peer in self)

    def tell(self, written: Written, read: int) -> None:
        """Say what this rank has written and read.

        Raises:
            OSError: one of them is gone, or has not listened for too long.
        """
        for peer in self:
            while not peer.tell(written, read):
                self._incoming.modify(peer.line, select.POLLIN | select.POLLOUT)
                self._wait("listened")
                self._incoming.modify(peer.line, select.POLLIN)

    def wait_for(self, operation: int) -> None:
        """Until all of them have written for an operation.

        Raises:
            OSError: one of them is gone, or has been silent for too long.
        """
        while late := [peer for peer in self if peer.last < operation]:
            if self._listen():
                continue
            if any(peer.gone for peer in late):
                raise ConnectionResetError("it has hung up")
            self._wait("written")

    def close(self) -> None:
        """Hang up."""
        for peer in self:
            peer.close()

    def _wait(self, what: str) -> None:
        if not self._incoming.poll(self._timeout_seconds * 1000):
            raise TimeoutError(f"it has not {what} for {self._timeout_seconds:g} s")
        self._listen()

    def _listen(self) -> bool:
        """Take what is there; False where nothing is."""
        heard = [peer.listen() for peer in self if not peer.gone]
        for peer in self:
            if peer.gone:
                with contextlib.suppress(KeyError):
                    self._incoming.unregister(peer.line)
        return any(heard)


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
    results: list[Result] = []  # none where it has failed
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
        if user != os.geteuid():
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
    message, descriptors, _, _ = socket.recv_fds(line, _GREETING.size, 1, socket.MSG_CMSG_CLOEXEC)
    for descriptor in descriptors:
        memory = Memory(descriptor)
        opened.callback(memory.close)
    if len(message) != _GREETING.size or not descriptors:
        raise ConnectionResetError("it has sent no memory")
    return _GREETING.unpack(message)[0], memory
