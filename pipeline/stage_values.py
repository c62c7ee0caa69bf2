"""DRIVER. What the stages hand each other: a finished training, its evaluation, a registered model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.dataset import Dataset
from pipeline.run_folder import MODEL
from pipeline.task import TrainingResult

if TYPE_CHECKING:
    from pipeline.inference.evaluate import Evaluation


@dataclass(frozen=True)
class Run:
    """A finished training: its folder holds checkpoints, metrics and the model.

    Attributes:
        reused: the folder held this very training already, and nothing was done.
    """

    config: PipelineConfig
    dataset: Dataset
    result: TrainingResult
    mlflow_run_id: str | None
    reused: bool = False

    @property
    def url(self) -> str:
        """The run folder."""
        return self.config.training.run_url

    @property
    def model_url(self) -> str:
        """The model folder, which predictors load."""
        return storage.join(self.url, MODEL)

    @property
    def allow_factories(self) -> tuple[str, ...]:
        """What the model may import, see `pipeline.inference.predictor.Predictor.load`."""
        return self.config.allowed_factories


@dataclass(frozen=True)
class Evaluated:
    """A run with what it reached on the test split."""

    run: Run
    evaluation: Evaluation
    reused: bool = False

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the model on the test split."""
        return self.evaluation.metrics

    def _repr_html_(self) -> str:
        from pipeline.report import render_table

        return render_table(self.evaluation)


@dataclass(frozen=True)
class Model:
    """A registered model version, or an unregistered model folder.

    Attributes:
        allow_factories: what it may import, see `pipeline.inference.predictor.Predictor.load`.
    """

    url: str
    name: str | None = None
    version: str | None = None
    allow_factories: tuple[str, ...] = ()
