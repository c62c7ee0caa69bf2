"""What a first step or a first validation would stumble over is found on the driver, before any rank starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.before_launch import check_training
from pipeline.config import PipelineConfig, parse_config
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset

Metrics = Callable[[Tensor, Tensor, Tensor], dict[str, Any]]


def config_of(dataset: Dataset, label_type: str, **training: Any) -> PipelineConfig:
    return parse_config(
        {
            "features": {"n0": {"type": "numeric"}},
            "label": {"column": "label", "type": label_type},
            "dataset": {"url": dataset.url},
            "model": {"name": "linear"},
            "training": {"run_url": dataset.url + "/run", **training},
        }
    )


def checked(folder: Path, code: UserCode, label_type: Any = "regression", **training: Any) -> None:
    dataset = tiny_dataset(str(folder), 40, label_type=label_type)
    before = torch.get_rng_state()
    check_training(config_of(dataset, label_type, **training), dataset, code)
    assert torch.equal(torch.get_rng_state(), before)


class MeanAndSpread(torch.nn.Module):
    def __init__(self, schema: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(len(schema.numeric), 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.layer(inputs["numeric"])


def gaussian(predictions: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    mean, spread = predictions.T
    return (spread + (label - mean) ** 2 / spread.exp()) @ weight


def test_an_output_that_only_the_own_loss_can_read_is_refused(tmp_path: Path) -> None:
    code = UserCode(model=MeanAndSpread, loss=gaussian)
    with pytest.raises(ConfigError, match=r"output for 4 rows is \(4, 2\); expected \(4,\) for a regression label"):
        checked(tmp_path, code)


def absolute(predictions: Tensor, label: Tensor, weight: Tensor) -> dict[str, Any]:
    return {"far": (predictions - label - 1).abs() @ weight}


def a_mean(predictions: Tensor, label: Tensor, weight: Tensor) -> dict[str, Any]:
    return {"far": 1 + (predictions - label).abs().mean()}


def mean_of_weighted(predictions: Tensor, label: Tensor, weight: Tensor) -> dict[str, Any]:
    return {"far": ((predictions - label).abs() * weight).mean()}


def broken(predictions: Tensor, label: Tensor, weight: Tensor) -> dict[str, Any]:
    return {"far": (predictions - label[:2]) @ weight}


@pytest.mark.parametrize(
    ("metrics", "settings", "message"),
    [
        (broken, {}, r"the metrics fail: RuntimeError: The size of tensor a .*expected metrics\(predictions, label"),
        (lambda p, y: {}, {}, "the metrics fail: TypeError"),
        (a_mean, {}, r"the metric far is not a weighted sum \(twice the weights"),
        (mean_of_weighted, {}, r"the metric far is not a weighted sum \(the sums of two halves"),
        (absolute, {"best_by": "fra", "best_is": "min"}, r"best_by is fra; expected auto or one of far, loss, mae"),
        (absolute, {"best_by": "far"}, "training.best_is is auto, but training.best_by far is no metric of ours"),
    ],
)
def test_own_metrics_and_the_name_of_the_best_are_tried_on_a_batch(
    tmp_path: Path, metrics: Metrics, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(tmp_path, UserCode(metrics=metrics), **settings)


@pytest.mark.parametrize("label_type", ["binary", "multiclass", "regression"])
def test_good_metrics_pass_with_every_type_of_label(tmp_path: Path, label_type: str) -> None:
    def metrics(predictions: Tensor, label: Tensor, weight: Tensor) -> dict[str, Any]:
        return {"far": (predictions.reshape(len(label), -1).mean(1) - label).abs() @ weight}

    checked(tmp_path, UserCode(metrics=metrics), label_type, best_by="far", best_is="min")


def test_what_waits_for_validations_is_refused_where_there_are_no_rows_for_them(tmp_path: Path) -> None:
    dataset = tiny_dataset(str(tmp_path), {"train": 40, "test": 10})
    waiting: dict[str, Any] = {"early_stopping": 2, "validate_every_steps": 3, "schedule": {"name": "plateau"}}
    with pytest.raises(ConfigError) as refused:
        check_training(config_of(dataset, "binary", **waiting), dataset, UserCode())
    assert [offence.split(",")[0] for offence in refused.value.offences] == [
        "training.early_stopping is 2",
        "training.validate_every_steps is 3",
        "training.schedule.name is plateau",
    ]
    check_training(config_of(dataset, "binary"), dataset, UserCode())


def test_an_optimizer_that_fails_in_its_first_step_is_refused(tmp_path: Path) -> None:
    for code in (UserCode(), UserCode(optimizer=lambda parameters: torch.optim.Adam(parameters))):
        checked(tmp_path, code, optimizer={"options": {"amsgrad": True}})
    with pytest.raises(ConfigError, match=r"the optimizer SparseAdam fails in its first step: RuntimeError"):
        checked(tmp_path, UserCode(optimizer=lambda parameters: torch.optim.SparseAdam(parameters)))
