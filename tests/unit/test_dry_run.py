"""What is wrong with a user's model or loss is found on the driver, in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.config.training import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.dry_run import dry_run, made_up_label
from pipeline.task import UserCode
from pipeline.testing import tiny_schema

SCHEMA = tiny_schema(3, 2, {}, "binary", ())


class Net(torch.nn.Module):
    def __init__(self, schema: Any, squeeze: bool = True, columns: int = 3) -> None:
        super().__init__()
        self.layer, self.squeeze = torch.nn.Linear(columns, 1), squeeze

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        output = self.layer(inputs["numeric"])
        return output.squeeze(1) if self.squeeze else output


def weighted_sum(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(predictions, label, reduction="none") @ weight


def test_a_good_model_and_a_good_loss_pass_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    dry_run(ModelConfig(name="tabular"), SCHEMA)
    dry_run(ModelConfig(), SCHEMA, UserCode(model=Net, loss=weighted_sum))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"squeeze": False}, r"output for 4 rows is \(4, 1\); expected \(4,\) .*squeeze"),
        ({"columns": 7}, r"fails on inputs numeric \(4, 3\), categorical \(4, 2\).*mat1 and mat2"),
    ],
)
def test_a_model_of_another_shape_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dry_run(ModelConfig(options=options), SCHEMA, UserCode(model=Net))


def test_a_state_that_no_checkpoint_can_hold_is_refused_by_name() -> None:
    class Extra(Net):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 1}

    with pytest.raises(ConfigError, match=r"the model's state has _extra_state, a dict; expected tensors"):
        dry_run(ModelConfig(), SCHEMA, UserCode(model=Extra))


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, y, w: (F.binary_cross_entropy_with_logits(p, y, reduction="none") * w).sum() / w.sum(),
        lambda p, y, w: (F.binary_cross_entropy_with_logits(p, y, reduction="none") * w).mean(),
        lambda p, y, w: F.binary_cross_entropy_with_logits(p, y) * w.sum(),
        lambda p, y, w: F.binary_cross_entropy_with_logits(p, y),
        lambda p, y, w: F.binary_cross_entropy_with_logits(p, y, reduction="none"),
    ],
    ids=["a weighted mean", "a mean over rows", "a mean times all weights", "a mean", "one number per row"],
)
def test_a_loss_that_is_no_weighted_sum_is_refused(loss: Any) -> None:
    with pytest.raises(ConfigError, match="not a weighted sum"):
        dry_run(ModelConfig(), SCHEMA, UserCode(model=Net, loss=loss))


def poisson_deviance(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    mean = predictions.exp()
    return (label * torch.log(label / mean) - (label - mean)) @ weight


def beta_likelihood(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return -torch.distributions.Beta(predictions.exp(), torch.ones(())).log_prob(label) @ weight


def test_a_loss_that_is_defined_for_positive_labels_or_between_0_and_1_only_passes() -> None:
    schema = tiny_schema(3, 2, {}, "regression", ())
    for loss in (poisson_deviance, beta_likelihood):
        dry_run(ModelConfig(), schema, UserCode(model=Net, loss=loss))


def test_a_loss_that_made_up_labels_do_not_suit_is_left_to_the_training() -> None:
    schema = tiny_schema(3, 2, {}, "regression", ())
    dry_run(ModelConfig(), schema, UserCode(model=Net, loss=lambda p, y, w: (torch.log(y - 1) - p) ** 2 @ w))


@pytest.mark.parametrize(("label_type", "labels"), [("binary", 1), ("binary", 2), ("regression", 2), ("multiclass", 1)])
def test_made_up_labels_vary_and_are_valid(label_type: Any, labels: int) -> None:
    schema = tiny_schema(3, 0, {}, label_type, ("x", "y", "z"), labels=tuple("ab"[:labels]))
    label = made_up_label(schema, 4)
    assert label.shape == ((4,) if labels == 1 else (4, 2))
    assert len(label.unique()) > 1
    assert label.min() >= 0
    assert label.max() <= (2 if label_type == "multiclass" else 1)
