"""DRIVER. The second launcher: `horovod.spark.run`, for clusters where barrier stages cannot be used.

Slower to start and without gang scheduling. Some habits of horovod 0.28.1 are mended for the time of a run: it
replaces the driver's signal handlers for good and works in the main thread only (`register_shutdown_event`); it
listens on all interfaces (`find_port`), and never stops the server where ranks find each other; a cancelled job prints
a traceback; and when a rank fails it goes on (`cancel` ends it). On executors its task services still listen on all
interfaces; what they unpickle is signed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pyspark.sql import SparkSession

from pipeline.launch.cluster import driver_addresses
from pipeline.launch.environment import environment
from pipeline.launch.listening import listening_on
from pipeline.launch.rank import RankCall, interface_of, run_started_rank

logger = logging.getLogger(__name__)


class HorovodRunLauncher:
    """Starts ranks with `horovod.spark.run`, all within so many seconds."""

    def __init__(self, spark: SparkSession, start_seconds: float) -> None:
        self._spark = spark
        self._start_seconds = start_seconds
        self._stop = threading.Event()

    def run(self, call: RankCall, num_proc: int) -> list[Any]:
        """Run all ranks to their end; their results by rank. Called in a thread of its own."""
        import horovod.spark

        bind, advertised = driver_addresses(self._spark)
        interface = interface_of(advertised)
        with _mended(self._stop, bind), open(os.devnull, "w") as nowhere:
            results: list[Any] = horovod.spark.run(
                _run_rank,
                args=(call,),
                num_proc=num_proc,
                start_timeout=math.ceil(self._start_seconds),
                use_gloo=True,
                env=dict(call.variables),
                nics={interface} if interface else None,
                verbose=0,
                stdout=nowhere,
                stderr=nowhere,
            )
        return results

    def cancel(self) -> None:
        """Make `run` end soon."""
        self._stop.set()


def _run_rank(call: RankCall) -> Any:
    """RANK. Spark's GPUs of this task are the only ones that it sees."""
    from horovod.spark.task import get_available_devices

    gpus = get_available_devices()
    with environment({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}):
        return run_started_rank(call)


@contextlib.contextmanager
def _mended(stop: threading.Event, bind: str) -> Iterator[None]:
    from horovod.runner import gloo_run
    from horovod.runner.common.util import network
    from horovod.runner.http import http_server

    stores = []

    def find_port(start: Callable[[tuple[str, int]], Any]) -> tuple[Any, int]:
        with listening_on(bind):
            server = start((bind, 0))
        return server, int(server.server_address[1])

    def find_port_of_store(start: Callable[[tuple[str, int]], Any]) -> tuple[Any, int]:
        server, port = find_port(start)
        stores.append(server)
        return server, port

    def quiet(thread_end: threading.ExceptHookArgs) -> None:
        if "run_spark" in str(thread_end.thread and thread_end.thread.name):
            logger.debug("the Spark job of horovod.spark.run ended: %s", thread_end.exc_value)
        else:
            excepthook(thread_end)

    excepthook = threading.excepthook
    before = (gloo_run.register_shutdown_event, network.find_port, http_server.find_port)
    gloo_run.register_shutdown_event = lambda: stop
    network.find_port, http_server.find_port = find_port, find_port_of_store
    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = excepthook
        gloo_run.register_shutdown_event, network.find_port, http_server.find_port = before
        for server in stores:
            server.shutdown()
            server.server_close()
