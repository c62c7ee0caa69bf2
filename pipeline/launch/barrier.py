"""DRIVER. The default launcher: ranks in a Spark barrier stage, whatever collective they use.

Spark starts all tasks together or none, and ends the siblings of a failed one. The ranks find each other at a
rendezvous, which runs here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from pipeline.launch.cluster import driver_addresses
from pipeline.launch.rank import RankCall, barrier_task
from pipeline.launch.rendezvous import rendezvous
from pipeline.launch.tasks import run_together


class BarrierLauncher:
    """Starts one rank per barrier task, each with so many cores; None for those of the session's tasks."""

    def __init__(self, spark: SparkSession, cores: int | None = None) -> None:
        self._spark = spark
        self._cores = cores
        self._group = f"train-{uuid.uuid4().hex[:12]}"

    def run(self, call: RankCall, num_proc: int) -> list[Any]:
        """Run all ranks to their end; their results by rank. Called in a thread of its own."""
        context = self._spark.sparkContext
        bind, advertised = driver_addresses(self._spark)
        with rendezvous(call.collective, bind) as port:
            task = partial(_run_task, replace(call, rendezvous=(advertised, port)))
            context.setJobGroup(self._group, f"train on {num_proc} ranks", interruptOnCancel=True)
            results = run_together(self._spark, task, num_proc, self._cores)
        return [result for _, result in sorted(results, key=lambda pair: int(pair[0]))]

    def cancel(self) -> None:
        """Make `run` end soon."""
        self._spark.sparkContext.cancelJobGroup(self._group)


def _run_task(call: RankCall, _: Iterable[int]) -> Iterator[tuple[int, Any]]:
    return barrier_task(call)
