"""What a loop from code leaves without effect is refused before the launch, all at once; its model is tried there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.before_launch import check_training
from pipeline.config import parse_config
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), 40)


def _check(dataset: Dataset, code: UserCode, **training: Any) -> None:
    config = {
        "features": {"n0": {"type": "numeric"}},
        "label": {"column": "label", "type": "binary"},
        "dataset": {"url": dataset.url},
        "training": {"run_url": "run", **training},
    }
    check_training(parse_config(config), dataset, code)


def test_settings_of_the_built_in_loop_are_refused_all_at_once_with_what_to_do(dataset: Dataset) -> None:
    idle = {
        "optimizer": {"name": "SGD", "learning_rate": 0.5},
        "schedule": {"name": "cosine"},
        "micro_batch_size": 17,
        "class_weights": {"0": 2.0},
        "early_stopping": 3,
        "validate_every_steps": 10,
        "precision": "bf16",
        "profile_steps": 2,
    }
    code = UserCode(loop=print, loss=print, optimizer=print, metrics=print, callback=print)
    with pytest.raises(ConfigError) as caught:
        _check(dataset, code, **idle)
    named = [offence.split(" is ")[0] for offence in caught.value.offences]
    assert named == [
        "training.micro_batch_size",
        "training.optimizer.name",
        "training.optimizer.learning_rate",
        "training.schedule.name",
        "training.class_weights",
        "training.early_stopping",
        "training.validate_every_steps",
        "training.precision",
        "training.profile_steps",
        *("loss=", "optimizer=", "metrics=", "callback="),
    ]
    assert all(offence.count("; ") >= 2 for offence in caught.value.offences), "each says what to do"


def test_settings_that_an_own_loop_heeds_pass(dataset: Dataset) -> None:
    heeded = {
        **{"epochs": 2, "seed": 3, "global_batch_size": 10, "last_batch": "drop", "best_by": "mine", "best_is": "max"},
        **{"clip_norm": 1.0, "clip_value": 1.0, "l1": 0.1, "ema_decay": 0.9, "max_skipped_steps": 3},
        **{"compression": "fp16", "bucket_bytes": 2048, "precision": "float64", "device": "cpu"},
        **{"checkpoint": {"every_steps": 3}, "loader": {"reader_threads": 2}},
    }
    _check(dataset, UserCode(loop=print), **heeded)


class _TwoColumns(torch.nn.Module):
    def __init__(self, schema: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(len(schema.numeric), 2)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layer(inputs["numeric"])


class _NotTraceable(_TwoColumns):
    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers = self.layer(inputs["numeric"]).sum(1)
        return numbers * (2.0 if float(numbers.detach().sum()) > 0 else 1.0)


@pytest.mark.parametrize(
    ("model", "message"), [(_TwoColumns, r"output for 4 rows is \(4, 2\)"), (_NotTraceable, "not traceable")]
)
def test_the_model_of_an_own_loop_is_tried_before_the_launch(dataset: Dataset, model: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _check(dataset, UserCode(model=model, loop=print))
