"""DRIVER. What a command has reached: the values of RESULT and ``result.json``, and the stage in ``status.json``."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.dataset import Dataset
from pipeline.errors import StorageError, as_pipeline_error
from pipeline.stage_values import Evaluated, Model, Run
from pipeline.status_file import StatusFile

logger = logging.getLogger(__name__)

_RESULT_FORMAT = ("result", 1)


class Outcome:
    """What RESULT says, filled in as stages end, so that a failed run tells what it reached.

    Args:
        values: the dict to fill, for a caller that has to say what was reached although the run fails.

    Attributes:
        status: of the same command, for `pipeline status`.
    """

    def __init__(self, config: PipelineConfig, last_stage: str, values: dict[str, Any] | None = None) -> None:
        self._url = storage.join(config.training.run_url, "result.json")
        self.status = StatusFile(config.training.run_url, goes_on=last_stage == "evaluate")
        self.values = {} if values is None else values
        self.values |= {"status": "done", "stage": last_stage, "seconds": {}, "reused": []}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, and name it if it fails."""
        started = time.monotonic()
        self.values["stage"] = name
        logger.info("%s: started", name)
        with self.status.stage(name):
            yield
        self.values["seconds"][name] = round(time.monotonic() - started, 1)
        logger.info("%s: done in %.1f s", name, self.values["seconds"][name])

    def reused(self, name: str) -> None:
        """Note that a stage found its work done already."""
        self.values["reused"].append(name)

    @contextlib.contextmanager
    def written(self) -> Iterator[dict[str, Any]]:
        """Write ``result.json`` however the run ends; cluster modes lose exit codes."""
        try:
            with self.status.command(str(self.values["stage"])):
                yield self.values
        except (KeyboardInterrupt, Exception) as error:
            self.values |= as_pipeline_error(error).outcome
            with contextlib.suppress(StorageError):
                self._write()
            raise
        self._write()

    def _write(self) -> None:
        storage.write_json(self._url, *_RESULT_FORMAT, json.loads(json.dumps(self.values, default=str)))

    def dataset(self, dataset: Dataset) -> None:
        """Note what was published."""
        self.values["dataset"] = {"url": dataset.url, "content_id": dataset.content_id}
        self.values["rows"] = dataset.manifest.accounting.as_rows()

    def run(self, run: Run) -> None:
        """Note what was trained."""
        result = run.result
        stack = {"collective": result.collective, "shared_memory": result.shared_memory, "reader": result.reader}
        self.values["run"] = {"url": run.url, "mlflow_run_id": run.mlflow_run_id, **stack}

    def evaluated(self, evaluated: Evaluated) -> None:
        """Note what the test split says."""
        self.values["metrics"] = dict(evaluated.metrics)

    def model(self, model: Model) -> None:
        """Note which model version came of it."""
        self.values["model"] = {"name": model.name, "version": model.version, "url": model.url}
