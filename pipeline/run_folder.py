"""ANYWHERE. A run folder: what its files are called, whose training is in it, and how that ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.yaml_text import dump_yaml
from pipeline.errors import ConfigError
from pipeline.task import TrainingResult, TrainingTask

CONFIG = "config.yaml"
TRAINING = "training.json"
CHECKPOINTS = "checkpoints"
STATUS = "status.json"
METRICS = "metrics.jsonl"
LOGS = "logs"
MODEL = "model"
REGISTERED = "registered"
EVALUATION = "evaluation.json"
REPORT = "report.html"
RESULT = "result.json"
TRACKING = "tracking.json"
TRACKING_PENDING = "tracking-pending.jsonl"
"""What lies in a run folder."""

STATUS_FORMAT = ("status", 1)
RESULT_FORMAT = ("result", 1)
_TRAINING_FORMAT = ("training", 2)

_MARKS = {CONFIG, CHECKPOINTS, TRAINING, STATUS, RESULT}


def is_run_folder(names: Iterable[str]) -> bool:
    """Whether a folder with these names in it is one that a command has left."""
    return not _MARKS.isdisjoint(names)


@dataclass(frozen=True)
class RunFolder:
    """The folder ``training.run_url``; ``training.json`` in it belongs to one training for ever."""

    url: str

    def begin(self, task: TrainingTask, config: PipelineConfig) -> None:
        """Claim the folder for a training, and keep the configuration beside it."""
        given = {"init_from": config.training.init_from}
        storage.write_json(self._training_url, *_TRAINING_FORMAT, {"identity": task.identity(), "given": given})
        storage.write_bytes(storage.join(self.url, CONFIG), config_yaml(config))

    def finish(self, task: TrainingTask, result: TrainingResult, mlflow_run_id: str | None) -> None:
        """Record how the training ended."""
        ended = {"result": dataclasses.asdict(result), "mlflow_run_id": mlflow_run_id}
        begun = self._record() or {}
        storage.write_json(self._training_url, *_TRAINING_FORMAT, {**begun, "identity": task.identity(), **ended})

    def finished(self, task: TrainingTask) -> tuple[TrainingResult, str | None] | None:
        """Result and MLflow run of this very training, if it has finished here."""
        record = self._record()
        if record is None or "result" not in record or record["identity"] != task.identity():
            return None
        result = {**record["result"], "best_metrics": storage.numbers(record["result"]["best_metrics"])}
        return TrainingResult(**result), record.get("mlflow_run_id")

    def has_finished(self) -> bool:
        """Whether a training, whichever it is, has come to its end here."""
        return "result" in (self._record() or {})

    def refuse_other_training(self, task: TrainingTask) -> None:
        """Make sure that going on here continues the same training.

        Raises:
            ConfigError: names everything that differs.
        """
        record = self._record()
        if record is None or not (differences := task.differences(record["identity"])):
            return
        named = "; ".join(f"{each.key} was {each.saved!r} and is {each.wanted!r}" for each in differences)
        raise ConfigError(
            f"training.run_url {self.url} holds another training: {named}; "
            "expected the same; choose another training.run_url, or remove that folder"
        )

    def started_from(self, reference: str) -> str | None:
        """What a `training.init_from` meant when the training in this folder began with it; None if it did not."""
        record = self._record()
        if record is None or record.get("given", {}).get("init_from") != reference:
            return None
        return str(record["identity"]["training"]["init_from"])

    def content_id(self) -> str | None:
        """The version of the dataset that was trained on, if the folder says so."""
        record = self._record()
        return None if record is None else record["identity"].get("dataset")

    def best_epoch(self) -> int | None:
        """The epoch, from 1, of whose weights the model is; None while the training is not finished."""
        record = self._record() or {}
        return int(record["result"]["best_epoch"]) if "result" in record else None

    @property
    def _training_url(self) -> str:
        return storage.join(self.url, TRAINING)

    def _record(self) -> dict[str, Any] | None:
        return storage.read_json(self._training_url, *_TRAINING_FORMAT) if storage.exists(self._training_url) else None


def config_yaml(config: PipelineConfig) -> bytes:
    """The resolved configuration as YAML."""
    return dump_yaml(config.model_dump(mode="json", by_alias=True)).encode()
