"""RANK. How ranks of one host find each other, and hand each other the memory in which they write.

Their sockets have no name in the file system, which is Linux's, so ranks that are killed leave nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import uuid
from collections.abc import Callable
from typing import TypeVar

from pipeline.training.collective import Collective
from pipeline.training.host_memory import Memory

_MEETING_SECONDS = 10.0
_GREETING = struct.Struct("<Q")
_CREDENTIALS = struct.Struct("iII")  # process, user, group: unix(7), SO_PEERCRED

Found = dict[int, tuple[socket.socket, Memory]]
Result = TypeVar("Result")


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
