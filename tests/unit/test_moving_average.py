"""The average of weights follows them, takes their place, and reaches a model whose weights are tied."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.dataset import DatasetSchema
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset
from pipeline.training.checkpoint import open_checkpoint, read_weights
from pipeline.training.moving_average import MovingAverage
from tests.one_rank import trained


def test_the_average_follows_the_weights_and_swaps_places_with_them() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    average = MovingAverage(model, decay=0.5)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    average.update(step=100)
    assert torch.allclose(average.weights["weight"], start + 0.5)
    live = model.weight.detach().clone()
    average.swap()
    assert torch.allclose(model.weight, start + 0.5)
    average.swap()
    assert torch.equal(model.weight, live)


class Tied(torch.nn.Module):
    """Two layers with one weight."""

    def __init__(self, schema: DatasetSchema) -> None:
        super().__init__()
        width = len(schema.numeric)
        self.first, self.second = torch.nn.Linear(width, width, bias=False), torch.nn.Linear(width, width, bias=False)
        self.second.weight = self.first.weight
        self.last = torch.nn.Linear(width, 1)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(inputs["numeric"]))))).squeeze(1)


def test_tied_weights_are_exported_as_their_average_under_each_of_their_names(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows=400, categorical=0)
    options = {"code": UserCode(model=Tied), "model": {}, "ema_decay": 0.99, "optimizer": {"learning_rate": 0.1}}
    result = trained(dataset, tmp_path / "run", **options)  # type: ignore[arg-type]
    average = open_checkpoint(result.best_checkpoint).tensors("ema")
    weights = read_weights(result.best_checkpoint)
    for name in ("first.weight", "second.weight"):
        assert torch.equal(weights[name], average["first.weight"])
    live = open_checkpoint(result.best_checkpoint).tensors("model")
    assert not torch.equal(live["first.weight"], weights["first.weight"])
