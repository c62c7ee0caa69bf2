"""DRIVER and RANK. Changes to a process that end with a block, since Spark reuses its Python workers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put everything back at exit, also what was added inside.

    What is as it was is not touched: other threads read the environment meanwhile.
    """
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            os.environ.pop(name, None)
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextlib.contextmanager
def stop_on_signals(*signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """A function that tells whether one of the signals has come; outside the main thread it never does."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = {number: signal.signal(number, lambda *_: came.set()) for number in signals}
    try:
        yield came.is_set
    finally:
        for number, action in before.items():
            signal.signal(number, action)


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """What a signal raises in this thread, it raises at the end of the block; for what takes a moment only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: dict[int, None] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(_raise_again, came)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(action := signal.getsignal(number)):
                stack.callback(signal.signal, number, action)
                signal.signal(number, lambda number, _: came.update({number: None}))
        yield


def _raise_again(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.raise_signal(number)


@contextlib.contextmanager
def plain_interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt and does nothing else, where PySpark's handler would first cancel all jobs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if not str(getattr(before, "__module__", "")).startswith("pyspark."):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
