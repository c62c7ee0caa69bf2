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
from pipeline.errors import OutputError, StorageError, as_pipeline_error
from pipeline.run_folder import RESULT, RESULT_FORMAT
from pipeline.stage_values import Evaluated, Model, Run
from pipeline.status_file import StatusFile

logger = logging.getLogger(__name__)

_REACHED = ("dataset", "rows", "run", "metrics", "model", "report")
_STAGES = ("prepare", "train", "evaluate", "register", "report")


class Outcome:
    """What RESULT says, filled in as stages end, so that a failed run tells what it reached.

    Args:
        goes_on: see `StatusFile`.
        values: the dict to fill, for a caller that has to say what was reached although the run fails.

    Attributes:
        status: of the same command, for `pipeline status`.
    """

    def __init__(
        self, config: PipelineConfig, last_stage: str, goes_on: bool = False, values: dict[str, Any] | None = None
    ) -> None:
        self._url = storage.join(config.training.run_url, RESULT)
        self.status = StatusFile(config.training.run_url, goes_on)
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

    def of_run(self) -> dict[str, Any]:
        """All that ``result.json`` is to say: this command's values, and what earlier ones reached with its dataset.

        An evaluation tells all about a model anew; the time of a stage is that of the command that did its work.
        """
        before = self._before()
        if before.get("dataset") != self.values.get("dataset", before.get("dataset")):
            before = {}
        reached = {} if "metrics" in self.values else {name: before[name] for name in _REACHED if name in before}
        spent = {name: value for name, value in self.values["seconds"].items() if name not in self.values["reused"]}
        seconds = {**self.values["seconds"], **before.get("seconds", {}), **spent}
        return {**reached, **self.values, "seconds": {name: seconds[name] for name in _STAGES if name in seconds}}

    def ends_as_before(self) -> bool:
        """Whether the gate and the registry say what they said when ``result.json`` was written."""
        before = self._before()
        return all(before.get(name) == self.values.get(name) for name in ("error", "model"))

    def _before(self) -> dict[str, Any]:
        """What ``result.json`` says by now; nothing if it is missing or broken."""
        with contextlib.suppress(StorageError):
            return storage.read_json(self._url, *RESULT_FORMAT)
        return {}

    @contextlib.contextmanager
    def written(self) -> Iterator[dict[str, Any]]:
        """Write ``result.json`` however the run ends; cluster modes lose exit codes.

        Where another writer holds the folder, or it holds a training that is not known to be this one, it is theirs.
        """
        try:
            with self.status.command(str(self.values["stage"])):
                yield self.values
        except (KeyboardInterrupt, Exception) as error:
            self.values |= as_pipeline_error(error).outcome
            if self.status.speaks and not isinstance(error, OutputError):
                with contextlib.suppress(StorageError):
                    self._write()
            raise
        self._write()

    def _write(self) -> None:
        storage.write_json(self._url, *RESULT_FORMAT, json.loads(json.dumps(self.of_run(), default=str)))

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
        self.values["metrics"] = storage.finite_json(evaluated.metrics)

    def model(self, model: Model) -> None:
        """Note which model version came of it."""
        self.values["model"] = {"name": model.name, "version": model.version, "url": model.url}
