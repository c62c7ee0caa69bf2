"""What a first step or a first validation would stumble over is found on the driver, before any rank starts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.before_launch import check_training
from pipeline.config import PipelineConfig, parse_config
from pipeline.config.training import ClusterConfig, TrainingConfig
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.models.tabular import BatchNorm
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset, tiny_schema
from pipeline.training.dry_batch import refuse_lone_row
from tests.one_rank import trained

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


def test_an_own_metric_does_not_take_the_name_of_one_of_ours(tmp_path: Path) -> None:
    def metrics(predictions: Tensor, label: Tensor, weight: Tensor) -> dict[str, Any]:
        return dict.fromkeys(("roc_auc", "mine", "loss"), predictions @ weight)

    with pytest.raises(ConfigError) as refused:
        checked(tmp_path, UserCode(metrics=metrics), "binary")
    assert [offence.split(" from")[0] for offence in refused.value.offences] == [
        "the metric loss",
        "the metric roc_auc",
    ]


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


class Normed(torch.nn.Module):
    def __init__(self, schema: Any, norm: type[torch.nn.Module] = torch.nn.BatchNorm1d) -> None:
        super().__init__()
        self.norm, self.layer = norm(len(schema.numeric)), torch.nn.Linear(len(schema.numeric), 1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.layer(self.norm(inputs["numeric"])).squeeze(1)


@pytest.mark.parametrize(
    ("rows", "ranks", "micro_batch_size", "lone"),
    [
        (128, 1, 1024, None),
        (129, 1, 1024, 1),
        (130, 1, 1024, None),
        (130, 2, 1024, 2),
        (131, 2, 1024, 3),
        (132, 2, 1024, None),
        (129, 3, 1024, 1),
        (128, 1, 1, 64),
        (131, 1, 2, 3),
        (128, 64, 1024, 64),
        (3, 2, 1024, 3),
    ],
)
def test_a_model_that_takes_no_single_row_is_refused_where_a_rank_or_a_micro_batch_has_one(
    rows: int, ranks: int, micro_batch_size: int, lone: int | None
) -> None:
    schema = tiny_schema(3, 0, {}, "binary", ())
    config = TrainingConfig(run_url="run", global_batch_size=64, micro_batch_size=micro_batch_size)
    expected = (
        nullcontext()
        if lone is None
        else pytest.raises(
            ConfigError, match=f"single row .ValueError.*a batch of {lone} rows leaves .* of {ranks} ranks"
        )
    )
    with expected:
        refuse_lone_row(lambda: Normed(schema), schema, config, rows, ranks)
    refuse_lone_row(lambda: Normed(schema, BatchNorm), schema, config, rows, ranks)


def test_the_last_batch_that_is_dropped_leaves_nobody_a_single_row() -> None:
    schema = tiny_schema(3, 0, {}, "binary", ())
    config = TrainingConfig(run_url="run", global_batch_size=64, last_batch="drop")
    refuse_lone_row(lambda: Normed(schema), schema, config, 129, 1)


def test_a_single_row_is_found_on_the_driver_where_it_knows_the_ranks_and_else_by_them_before_they_train(
    tmp_path: Path,
) -> None:
    dataset, code = tiny_dataset(str(tmp_path), 65, categorical=0), UserCode(model=Normed)
    config = config_of(dataset, "binary", global_batch_size=64)
    check_training(config, dataset, code)  # on as many ranks as the cluster has
    alone = config.model_copy(update={"cluster": ClusterConfig(launcher="in_process")})
    with pytest.raises(ConfigError, match="single row"):
        check_training(alone, dataset, code)
    with pytest.raises(ConfigError, match="single row"):
        trained(dataset, tmp_path / "run", code=code, model={}, global_batch_size=64)
    assert not (tmp_path / "run").exists()
