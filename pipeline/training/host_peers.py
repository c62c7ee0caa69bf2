"""RANK. The lines between ranks of one host: each says what it has written for the others, and what it has read."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from pipeline.training.host_meeting import Found
from pipeline.training.host_memory import Memory

# What the sender has written for its next operation, and the operation up to which it has read everything.
_MESSAGE = struct.Struct("<QQQQ")


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
