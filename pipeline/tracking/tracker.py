"""DRIVER. A training's metrics on their way to MLflow, in a thread of their own: training never waits for them.

What cannot be delivered is tried again, and at the end kept in ``<run>/tracking-pending.jsonl``; the next command on
the run folder delivers it. Records carry their time, so that delivering one twice changes nothing.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.release import TrackingConfig
from pipeline.dataset import Dataset
from pipeline.errors import InterruptedRunError, PipelineError
from pipeline.run_folder import METRICS, TRACKING_PENDING
from pipeline.tracking.store import Store, use_mlflow_settings

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 20.0
_FLUSH_INTERRUPTED_SECONDS = 3.0
_RETRY_SECONDS = 5.0
_QUEUE_LENGTH = 10_000

Task = Callable[[str], None]
"""Something to do with the id of the run."""


class Tracker:
    """The MLflow run of a training; a `pipeline.task.Reporter`, and a context manager that ends the run.

    Args:
        config: where MLflow is.
        run_url: the run folder.
        flush_seconds: how long leaving the context may wait for MLflow; after an interrupt it waits 3 seconds at most.
    """

    def __init__(self, config: TrackingConfig, run_url: str, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._store = Store(config, run_url)
        self._pending_url = storage.join(run_url, TRACKING_PENDING)
        self._flush_seconds = flush_seconds
        self._tasks: queue.Queue[Task] = queue.Queue(_QUEUE_LENGTH)
        self._undelivered: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._known, self._closing, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._run_id: str | None = None
        self._new = False
        self._warned = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def __enter__(self) -> Tracker:
        self._undelivered = _read_pending(self._pending_url)
        if self._undelivered:
            self._submit(lambda run_id: None)
        use_mlflow_settings()  # here, since a block of the caller may put back an environment that its thread changes
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = isinstance(error, KeyboardInterrupt | InterruptedRunError)
        state = "FINISHED" if error is None else "KILLED" if interrupted else "FAILED"
        seconds = min(self._flush_seconds, _FLUSH_INTERRUPTED_SECONDS) if interrupted else self._flush_seconds
        try:
            self._submit(lambda run_id: self._store.end_run(run_id, state))
            self._closing.set()
            self._idle.wait(seconds)
        finally:  # Ctrl-C may come here too
            with self._lock:
                self._keep_undelivered()

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id; None if MLflow is not reachable. Waits while that is not known yet."""
        self._known.wait(self._flush_seconds)
        return self._run_id

    def parameters(self, config: PipelineConfig, dataset: Dataset, stack: Mapping[str, str] | None = None) -> None:
        """Log the configuration and name the dataset, once per run; ``stack`` is what carries it out."""
        parameters = {**run_parameters(config, dataset), **(stack or {})}

        def log(run_id: str) -> None:
            if self._new:
                self._store.log_parameters(run_id, parameters)
                self._store.log_dataset(run_id, dataset)

        self._submit(log)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Take metrics of a step on their way; returns at once."""
        now = int(time.time() * 1000)
        records = [
            {"key": name, "value": float(value), "timestamp": now, "step": step}
            for name, value in values.items()
            if math.isfinite(value)
        ]
        with self._lock:
            self._undelivered.extend(records)
        self._submit(lambda run_id: None)

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        """Progress is for the screen; MLflow gets the metrics."""

    def resumed(self, step: int) -> None:
        """Metrics of later steps will be logged again; MLflow shows the newest value of a step."""

    def event(self, message: str) -> None:
        """Events are for the log."""

    def timings(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        """Of single ranks, for the status; the shares among the metrics say how far they are apart."""

    def _submit(self, task: Task) -> None:
        try:
            self._tasks.put_nowait(task)
        except queue.Full:
            self._warn("its queue is full")

    def _work(self) -> None:
        """Carry out tasks in order; one that fails is tried again until the tracker closes."""
        while not (self._closing.is_set() and self._tasks.empty()):
            try:
                task = self._tasks.get(timeout=0.1)
            except queue.Empty:
                continue
            while not self._attempt(task):
                if self._closing.wait(_RETRY_SECONDS):
                    self._attempt(task)
                    break
        self._idle.set()

    def _attempt(self, task: Task) -> bool:
        try:
            if self._run_id is None:
                self._run_id, self._new = self._store.open_run()
                self._known.set()
            self._deliver(self._run_id)
            task(self._run_id)
        except Exception as error:  # whatever it is, training goes on
            self._warn(str(error) if isinstance(error, PipelineError) else repr(error))
            return False
        return True

    def _deliver(self, run_id: str) -> None:
        with self._lock:
            records = list(self._undelivered)
        if records:
            self._store.log_metrics(run_id, records)
            with self._lock:
                del self._undelivered[: len(records)]

    def _keep_undelivered(self) -> None:
        try:
            if self._undelivered:
                lines = "".join(json.dumps(record) + "\n" for record in self._undelivered)
                storage.write_bytes(self._pending_url, lines.encode())
                logger.warning(
                    "tracking: %d metric values are kept in %s; the next command on this run delivers them",
                    len(self._undelivered),
                    self._pending_url,
                )
            else:
                storage.remove(self._pending_url)
        except PipelineError as error:
            self._warn(str(error))

    def _warn(self, reason: str) -> None:
        """Say it once, not at every step."""
        self._known.set()
        if not self._warned:
            self._warned = True
            logger.warning("tracking: %s; training goes on, metrics are delivered later", reason)


def _read_pending(url: str) -> list[dict[str, Any]]:
    try:
        if storage.exists(url):
            return [json.loads(line) for line in storage.read_bytes(url).decode().splitlines()]
    except (PipelineError, ValueError) as error:
        logger.warning("%s is not readable: %s; the metrics are in %s", url, error, METRICS)
    return []


def run_parameters(config: PipelineConfig, dataset: Dataset) -> dict[str, str]:
    """What decides the result, by dotted name. Settings of the cluster are left out: they may hold secrets."""
    sections = config.model_dump(mode="json", include={"model", "training", "label", "split"}, exclude_none=True)
    sections["training"].pop("run_url")
    sections["features"] = {name: feature.type for name, feature in config.features.items()}
    sections["dataset"] = {
        "content_id": dataset.content_id,
        **{f"{split}_rows": dataset.manifest.rows(split) for split in dataset.manifest.splits},
    }
    return dict(_flat(sections))


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        pairs += _flat(inner, f"{name}.") if isinstance(inner, Mapping) else [(name, str(inner))]
    return pairs


def log_results(
    config: TrackingConfig, run_url: str, metrics: Mapping[str, float], files: Sequence[str] = ()
) -> str | None:
    """Add the test metrics (as ``test_<name>``) and files of the run folder to its MLflow run.

    Returns:
        The run's id; None, and a warning, if MLflow is not reachable.
    """
    store = Store(config, run_url)
    now = int(time.time() * 1000)
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    records = [{"key": f"test_{name}", "value": value, "timestamp": now, "step": 0} for name, value in finite.items()]
    pending_url = storage.join(run_url, TRACKING_PENDING)
    try:
        run_id, _ = store.open_run()
        store.log_metrics(run_id, [*_read_pending(pending_url), *records])
        storage.remove(pending_url)
        store.log_files(run_id, files)
        store.end_run(run_id, "FINISHED")
    except PipelineError as error:
        logger.warning("tracking: %s", error)
        return None
    return run_id
