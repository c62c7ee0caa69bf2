"""Validation measures the data as it is, in small batches, on whatever ranks have rows; and it can be stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.training import TrainingConfig
from pipeline.dataset import Dataset, DatasetSchema
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset, tiny_schema
from pipeline.training.batches import Batch
from pipeline.training.checkpoint import read_weights
from pipeline.training.collective import Collective
from pipeline.training.loader import Loader
from pipeline.training.objectives import build_objective
from pipeline.training.validation import validate
from tests.one_rank import trained
from tests.thread_ranks import ThreadCollective, on_thread_ranks

SCHEMA = tiny_schema(3, 0, {}, "binary", ())


class Net(torch.nn.Module):
    """Takes no empty batch, as many models do not, and notes how many rows came at once in validation."""

    seen: list[int]

    def __init__(self, schema: DatasetSchema) -> None:
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(len(schema.numeric), 1), []

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        numbers = inputs["numeric"]
        if not self.training:
            self.seen.append(len(numbers))
        return self.layer(numbers.view(numbers.shape[0], -1)).squeeze(1)


def highest(predictions: Tensor, label: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Has no value for no rows."""
    return {"above": weight.sum() * (predictions.max() > -1e9)}


class Batches:
    """Stands for a loader: the ranks' shares of batches of so many rows."""

    def __init__(self, collective: Collective, rows: list[int]) -> None:
        self.collective, self.rows = collective, rows

    def set_epoch(self, epoch: int) -> None: ...

    def __iter__(self) -> Any:
        random, ranks, rank = np.random.default_rng(0), self.collective.world_size, self.collective.rank
        for rows in self.rows:
            numbers = torch.from_numpy(random.normal(size=(rows, 3)).astype("float32"))
            mine = slice(rank, None, ranks)
            yield Batch({"numeric": numbers[mine]}, (numbers.sum(1) > 0).float()[mine])


def learner_on(collective: Collective, own_metrics: Any = None, **training: Any) -> Any:
    model, random = Net(SCHEMA), torch.Generator().manual_seed(0)  # of its own: ranks that are threads share torch's
    for weights in model.state_dict().values():
        weights.normal_(generator=random)
    return SimpleNamespace(
        model=model,
        objective=build_objective(SCHEMA, own_metrics=own_metrics),
        average=None,
        collective=collective,
        config=TrainingConfig(run_url="run", **training),
        device=torch.device("cpu"),
        class_weights=None,
    )


def validated(collective: Collective, rows: list[int], own_metrics: Any = None, **training: Any) -> Any:
    learner = learner_on(collective, own_metrics, **training)
    loader: Any = Batches(collective, rows)
    return validate(learner, loader, lambda: None, lambda: False), learner.model.seen


@pytest.mark.parametrize("rows", [[5, 2], [5, 1], [1], [2]], ids=str)
def test_a_rank_without_rows_of_a_batch_asks_neither_model_nor_metrics_and_knows_the_result(rows: list[int]) -> None:
    alone, _ = on_thread_ranks(1, lambda collective: validated(collective, rows, highest))[0]
    results = on_thread_ranks(3, lambda collective: validated(collective, rows, highest))
    for metrics, seen in results:
        assert 0 not in seen
        assert metrics == pytest.approx(alone, rel=1e-6, nan_ok=True)
    assert alone["above"] == 1.0


def test_no_more_rows_than_a_micro_batch_go_through_the_model_at_once() -> None:
    whole, seen = on_thread_ranks(1, lambda collective: validated(collective, [100, 31]))[0]
    assert seen == [100, 31]
    parts, seen = on_thread_ranks(1, lambda collective: validated(collective, [100, 31], micro_batch_size=32))[0]
    assert max(seen) <= 32
    assert sum(seen) == 131
    assert parts == pytest.approx(whole, rel=1e-6)


def test_class_weights_steer_the_loss_and_leave_the_metrics_to_the_data(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows=400, categorical=0)
    result = trained(dataset, tmp_path / "run", code=UserCode(model=Net), model={}, class_weights={"1": 20.0})
    logits, label = _predictions(dataset, result.best_checkpoint)
    metrics = result.best_metrics
    hits = (logits > 0) == (label > 0)
    assert metrics["accuracy"] == pytest.approx(float(hits.double().mean()))
    plain = F.binary_cross_entropy_with_logits(logits, label)
    assert metrics["log_loss"] == pytest.approx(float(plain), rel=1e-5)
    weighted = F.binary_cross_entropy_with_logits(logits, label, 1 + 19 * label, reduction="sum")
    assert metrics["loss"] == pytest.approx(float(weighted / (1 + 19 * label).sum()), rel=1e-5)


def _predictions(dataset: Dataset, checkpoint: str) -> tuple[Tensor, Tensor]:
    model = Net(dataset.schema).eval()
    model.load_state_dict(read_weights(checkpoint))
    batches = list(Loader(dataset, "validation", shuffle=False))
    with torch.no_grad():
        logits = torch.cat([model(batch.inputs) for batch in batches])
    return logits, torch.cat([batch.label for batch in batches])


def test_a_rank_that_is_told_stops_at_once_and_all_know() -> None:
    signs: dict[int, int] = {}

    def body(collective: ThreadCollective) -> tuple[Any, int]:
        seen: list[Any] = []
        learner: Any = learner_on(collective)
        loader: Any = Batches(collective, [6] * 5)

        def stop() -> bool:
            return collective.rank == 1 and len(learner.model.seen) == 2

        result = validate(learner, loader, lambda: seen.append(1), stop)
        signs[collective.rank] = len(seen)
        return result, len(learner.model.seen)

    assert on_thread_ranks(2, body) == [(None, 5), (None, 2)]
    assert signs == {0: 5, 1: 2}, "a sign of life for each batch"
