"""A model is measured once: what the run folder says of it is given again, unless something else is asked."""

from __future__ import annotations

from typing import Any

import pytest

import pipeline.inference.evaluate
from pipeline import flow
from pipeline.config import PipelineConfig, parse_config, with_sections
from pipeline.dataset import Dataset
from pipeline.inference.evaluate import Evaluation, Measured
from pipeline.stage_values import Run
from pipeline.task import TrainingResult
from tests.small_model import small_dataset, small_model

MEASURED = Measured("model", "", {"roc_auc": 0.75, "log_loss": float("nan")}, [[1, 0], [0, 1]], {})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(str(tmp_path_factory.mktemp("data")), 100)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> PipelineConfig:
    folder = tmp_path_factory.mktemp("run")
    small_model(str(folder / "model"), dataset, steps=1)
    sections = {"features": {"amount": {"type": "numeric"}}, "label": {"column": "late"}}
    return parse_config({**sections, "dataset": {"url": dataset.url}, "training": {"run_url": str(folder)}})


def test_an_evaluation_is_given_again_as_it_was_unless_another_is_asked(
    dataset: Dataset, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def evaluate(dataset: Dataset, *_: Any, **__: Any) -> Evaluation:
        asked.append(dataset)
        return Evaluation("m", dataset.content_id, 25, MEASURED)

    monkeypatch.setattr(pipeline.inference.evaluate, "evaluate", evaluate)
    result = TrainingResult(steps=1, epochs=1, best_epoch=0, best_metrics={}, best_checkpoint="c", rows=1)
    first, second = (flow.evaluate(Run(config, dataset, result, None)) for _ in range(2))
    assert (first.reused, second.reused, len(asked)) == (False, True, 1)
    assert first.evaluation.request
    assert second.evaluation.request == first.evaluation.request
    assert second.metrics == pytest.approx(first.metrics, rel=0, abs=0, nan_ok=True)
    other = with_sections(config, {"evaluation": {"baseline_rows": 7}})
    assert not flow.evaluate(Run(other, dataset, result, None)).reused
