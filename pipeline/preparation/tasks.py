"""DRIVER and EXECUTOR. Run a Python function over a list of items in Spark tasks, one task per item."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

Item = TypeVar("Item")


def run_tasks(session: SparkSession, function: Callable[[Item], Any], items: Sequence[Item]) -> list[Any]:
    """Call ``function`` once per item on the executors; JSON-able results come back in the order of the items.

    Only the results of tasks that succeeded arrive, each once, however often a task was retried.
    """
    if not items:
        return []

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                yield pa.RecordBatch.from_pydict({"index": [index], "result": [json.dumps(function(items[index]))]})

    rows = numbered(session, len(items)).mapInArrow(run, "index long, result string").collect()
    return [json.loads(row["result"]) for row in sorted(rows, key=lambda row: int(row["index"]))]


def numbered(session: SparkSession, tasks: int) -> DataFrame:
    """So many rows with a column ``id``, from 0 up, each for a task of its own.

    In SQL, since `SparkSession.range` brings up Scala's reflection first: a third of a second.
    """
    return session.sql(f"SELECT id FROM range(0, {tasks}, 1, {max(1, tasks)})")
