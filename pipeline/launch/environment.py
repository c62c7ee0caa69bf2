"""DRIVER and RANK. Changes to a process that end with a block, since Spark reuses its Python workers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping


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
