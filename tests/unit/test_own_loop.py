"""A user's own loop resumes exactly, sees every row once, and its gradients are those of the global mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, InterruptedRunError
from pipeline.task import SilentReporter, TrainingResult, TrainingTask, UserCode
from pipeline.testing import tiny_dataset
from pipeline.training.checkpoint import published_steps, read_weights, step_url
from pipeline.training.collective import SoloCollective
from pipeline.training.own_loop import TrainingContext
from pipeline.training.worker import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows=450)


def my_loop(context: TrainingContext) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    context.attach(model, optimizer)
    for epoch in context.epochs():
        for batch in context.batches():
            predictions = model(batch.inputs["numeric"]).squeeze(1)
            loss = F.binary_cross_entropy_with_logits(predictions, batch.label, reduction="sum")
            context.backward(loss, weight=batch.rows)
            context.step()
        context.report({"score": float(-abs(epoch - 1))})


def _run(
    dataset: Dataset, run: Path, stop: Any = lambda: False, loop: Any = my_loop, **training: Any
) -> TrainingResult:
    config = TrainingConfig(run_url=str(run), epochs=3, global_batch_size=100, **training)
    task = TrainingTask(dataset.url, dataset.content_id, ModelConfig(), config, UserCode(loop=loop))
    return train(task, SoloCollective(), SilentReporter(), stop)


@pytest.mark.parametrize("stop_after", [2, 5, 15], ids=["mid-epoch", "epoch end", "last step"])
def test_an_own_loop_resumes_to_the_same_bits(dataset: Dataset, tmp_path: Path, stop_after: int) -> None:
    undisturbed = _run(dataset, tmp_path / "through")
    asked = iter(range(100))
    with pytest.raises(InterruptedRunError):
        _run(dataset, tmp_path / "broken", stop=lambda: next(asked) == stop_after - 1)
    resumed = _run(dataset, tmp_path / "broken")
    assert resumed.rows == undisturbed.rows == 3 * 450
    one, other = (read_weights(step_url(str(tmp_path / name), 15)) for name in ("through", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_reported_metrics_choose_the_best_epoch(dataset: Dataset, tmp_path: Path) -> None:
    assert _run(dataset, tmp_path, best_by="score").best_epoch == 2


def test_checkpoints_fall_where_the_configuration_says(dataset: Dataset, tmp_path: Path) -> None:
    _run(dataset, tmp_path, checkpoint={"every_steps": 2, "keep": 20})
    assert published_steps(str(tmp_path)) == [2, 4, 5, 6, 8, 10, 12, 14, 15]


def test_a_loop_that_forgets_to_attach_is_told_so(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="attach"):
        _run(dataset, tmp_path, loop=lambda context: list(context.epochs()))
