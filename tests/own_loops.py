"""A small model, loops from code that train it on one rank, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.dataset import Dataset, DatasetSchema
from pipeline.errors import InterruptedRunError
from pipeline.task import SilentReporter, TrainingResult, TrainingTask, UserCode
from pipeline.training.batches import Batch
from pipeline.training.checkpoint import open_checkpoint, read_weights, step_url
from pipeline.training.collective import SoloCollective
from pipeline.training.own_loop import TrainingContext
from pipeline.training.worker import train

STEPS_PER_EPOCH = 5
"""450 rows in batches of 100, the last one of 50."""


class Net(torch.nn.Module):
    def __init__(self, schema: DatasetSchema, dropout: float = 0.3) -> None:
        super().__init__()
        width = len(schema.numeric)
        self.layers = torch.nn.Sequential(torch.nn.Linear(width, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 1))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layers(inputs["numeric"]).squeeze(1)


def loss_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(model(batch.inputs), batch.label, reduction="sum")


def attached(context: TrainingContext, schedule: Any = None, lr: float = 0.5) -> tuple[torch.nn.Module, Any]:
    model = context.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    if schedule is None:
        context.attach(model, optimizer)
        return model, None
    scheduler = schedule(optimizer, context)
    context.attach(model, optimizer, schedule=scheduler)
    return model, scheduler


def train_on(context: TrainingContext, model: torch.nn.Module, batch: Batch) -> None:
    context.backward(loss_of(model, batch), weight=batch.rows)
    context.step()


def my_loop(context: TrainingContext, schedule: Any = None) -> None:
    model, scheduler = attached(context, schedule)
    for epoch in context.epochs():
        for batch in context.batches():
            train_on(context, model, batch)
            if scheduler is not None:
                scheduler.step()
        context.report({"score": float(-abs(epoch - 1))})


def trained(
    dataset: Dataset, run: Path, stop: Any = lambda: False, loop: Any = my_loop, reporter: Any = None, **training: Any
) -> TrainingResult:
    model = training.pop("model", {"options": {"dropout": 0.3}})
    code = UserCode(model=Net, loop=loop, callback=training.pop("callback", None))
    config = TrainingConfig.model_validate({"run_url": str(run), "epochs": 3, "global_batch_size": 100, **training})
    task = TrainingTask(dataset.url, dataset.content_id, ModelConfig.model_validate(model), config, code)
    return train(task, SoloCollective(), reporter or SilentReporter(), stop)


def interrupted(dataset: Dataset, run: Path, after: int, **options: Any) -> None:
    asked = iter(range(1, 100))
    with pytest.raises(InterruptedRunError, match=f"after step {after};"):
        trained(dataset, run, stop=lambda: next(asked) == after, **options)


def digests(run: Path, step: int = 3 * STEPS_PER_EPOCH) -> dict[str, str]:
    """The sha256 of weights, optimizer, average and attached states, and the attached states that are no tensors."""
    checkpoint = open_checkpoint(step_url(str(run), step))
    digests = {name: digest.sha256 for name, digest in checkpoint.files.items() if name.endswith(".safetensors")}
    digests.pop("rank-0.safetensors")  # random states, which no later step uses
    return {**digests, "states": str(checkpoint.state()["others"])}


def weights(run: Path, step: int = 3 * STEPS_PER_EPOCH) -> dict[str, torch.Tensor]:
    return read_weights(step_url(str(run), step))


class Average:
    """An average of a weight by hand: a state of a tensor, a number and a tuple."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.seen = optimizer, (0,)
        self.mean = torch.zeros_like(optimizer.param_groups[0]["params"][0])

    def step(self) -> None:
        weight = self.optimizer.param_groups[0]["params"][0].detach()
        self.seen = (self.seen[0] + 1,)
        self.mean += (weight - self.mean) / self.seen[0]

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.mean = state["seen"], state["mean"]
