"""Whole trainings on one rank, in this process, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.dataset import Dataset
from pipeline.task import SilentReporter, TrainingResult, TrainingTask, UserCode
from pipeline.training.collective import SoloCollective
from pipeline.training.worker import train


class Notes(SilentReporter):
    """Remembers what a rank reports."""

    def __init__(self) -> None:
        self.epochs: list[Mapping[str, float]] = []
        self.events: list[str] = []
        self.resumed_at: int | None = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.epochs.append(values)

    def event(self, message: str) -> None:
        self.events.append(message)

    def resumed(self, step: int) -> None:
        self.resumed_at = step


def trained(
    dataset: Dataset,
    run: Path,
    notes: Notes | None = None,
    stop: Callable[[], bool] = lambda: False,
    code: UserCode | None = None,
    **training: Any,
) -> TrainingResult:
    """Three epochs of batches of 100 rows, unless ``training`` says otherwise; ``model`` is that section."""
    defaults: dict[str, Any] = {"run_url": str(run), "epochs": 3, "global_batch_size": 100, "seed": 1}
    defaults["optimizer"] = {"name": "AdamW", "learning_rate": 0.01}
    model = ModelConfig.model_validate(training.pop("model", {"options": {"hidden": [16]}}))
    config = TrainingConfig.model_validate({**defaults, **training})
    task = TrainingTask(dataset.url, dataset.content_id, model, config, code or UserCode())
    return train(task, SoloCollective(), notes or Notes(), stop)
