"""DRIVER. The default launcher: Horovod ranks in a Spark barrier stage.

Spark starts all tasks together or none, and ends the siblings of a failed one. Horovod's ranks find each other
at its own rendezvous server, which runs here.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from pipeline.errors import ServiceError
from pipeline.launch.cluster import driver_addresses
from pipeline.launch.rank import RankCall, barrier_task

_LONGEST_VALUE = 1 << 16


class BarrierLauncher:
    """Starts one rank per barrier task."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._group = f"train-{uuid.uuid4().hex[:12]}"

    def run(self, call: RankCall, num_proc: int) -> list[Any]:
        """Run all ranks to their end; their results by rank. Called in a thread of its own."""
        context = self._spark.sparkContext
        bind, advertised = driver_addresses(self._spark)
        with rendezvous_server(bind) as port:
            task = partial(_run_task, replace(call, rendezvous=(advertised, port)))
            context.setJobGroup(self._group, f"train on {num_proc} ranks", interruptOnCancel=True)
            results = context.parallelize(range(num_proc), num_proc).barrier().mapPartitions(task).collect()
        return [result for _, result in sorted(results, key=lambda pair: int(pair[0]))]

    def cancel(self) -> None:
        """Make `run` end soon."""
        self._spark.sparkContext.cancelJobGroup(self._group)


def _run_task(call: RankCall, _: Iterator[int]) -> Iterator[tuple[int, Any]]:
    return barrier_task(call)


@contextlib.contextmanager
def rendezvous_server(bind: str) -> Iterator[int]:
    """Horovod's rendezvous server on one address; its port.

    `horovod.runner.http.http_server.RendezvousServer` itself listens on all interfaces (CVE-2024-10190 was about
    its elastic sibling), so its parts are put together here: the same HTTP server and handler on the address
    that the ranks use. It stores small byte strings and interprets none.
    """
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class SmallValues(RendezvousHandler):  # type: ignore[misc]
        def do_PUT(self) -> None:
            if int(self.headers.get("Content-Length", _LONGEST_VALUE + 1)) > _LONGEST_VALUE:
                self.send_status_code(413)
            else:
                super().do_PUT()

    try:
        server = RendezvousHTTPServer((bind, 0), SmallValues, False)
    except OSError as error:
        raise ServiceError(
            f"the driver's address {bind} cannot be listened on: {error.strerror}; expected an address of this "
            "machine; set spark.driver.bindAddress and spark.driver.host"
        ) from error
    server.daemon_threads = True
    server.init([])
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="rendezvous", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
