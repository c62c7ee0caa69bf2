"""The gate names every metric that misses its bound."""

from __future__ import annotations

import math

import pytest

from pipeline.config.release import Bound
from pipeline.errors import GateError
from pipeline.inference.gate import check_gate


def test_a_model_within_its_bounds_passes():
    check_gate({"roc_auc": 0.7, "log_loss": 0.4}, {"roc_auc": Bound(min=0.7), "log_loss": Bound(max=0.4)})
    check_gate({"roc_auc": 0.1}, {})


def test_all_misses_are_named_at_once():
    with pytest.raises(GateError) as caught:
        check_gate({"roc_auc": 0.69, "log_loss": 0.5}, {"roc_auc": Bound(min=0.7), "log_loss": Bound(min=0.1, max=0.4)})
    first, second = caught.value.offences
    assert first.startswith("roc_auc on the test split is 0.6900; expected at least 0.7; ")
    assert second.startswith("log_loss on the test split is 0.5000; expected at least 0.1 and at most 0.4; ")
    assert caught.value.code == 76


@pytest.mark.parametrize("metrics", [{}, {"roc_auc": math.nan}])
def test_a_metric_that_is_not_defined_misses_every_bound(metrics):
    for bound in (Bound(min=0.0), Bound(max=1.0)):
        with pytest.raises(GateError):
            check_gate(metrics, {"roc_auc": bound})
