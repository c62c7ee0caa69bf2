"""What is wrong with a user's model or loss is found on the driver, in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.config.training import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.dry_run import dry_run
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


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, y, w: (F.binary_cross_entropy_with_logits(p, y, reduction="none") * w).sum() / w.sum(),
        lambda p, y, w: F.binary_cross_entropy_with_logits(p, y),
        lambda p, y, w: F.binary_cross_entropy_with_logits(p, y, reduction="none"),
    ],
    ids=["a weighted mean", "a mean", "one number per row"],
)
def test_a_loss_that_is_no_weighted_sum_is_refused(loss: Any) -> None:
    with pytest.raises(ConfigError, match="not a weighted sum"):
        dry_run(ModelConfig(), SCHEMA, UserCode(model=Net, loss=loss))
