"""What a restart may cost, and with how many ranks it goes on."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.config.training import ClusterConfig
from pipeline.errors import InterruptedRunError, ServiceError
from pipeline.launch.budget import RestartBudget
from pipeline.launch.resources import ClusterFacts, plan_restart
from pipeline.launch.watch import LostRanksError


def _facts(slots: int) -> ClusterFacts:
    return ClusterFacts("spark://host:7077", slots=slots, local=False)


def _lost(preempted: bool) -> LostRanksError:
    error = LostRanksError("rank 1 was lost")
    error.preempted = preempted
    return error


def test_failures_and_preemptions_have_their_own_budgets() -> None:
    budget = RestartBudget(max_failures=1, max_preemptions=2)
    said = [budget.spend(_lost(preempted)) for preempted in (True, False, True)]
    assert said == ["preemption 1 of 2", "failure 1 of 1", "preemption 2 of 2"]
    assert budget.restarts == 3
    with pytest.raises(InterruptedRunError, match=r"rank 1 was lost\nthe number of restarts is 1; .*max_failures=1"):
        budget.spend(_lost(False))


def test_a_restart_takes_all_slots_again_or_fewer_when_min_proc_allows() -> None:
    assert plan_restart(_facts(4), ClusterConfig(num_proc=4)).num_proc == 4
    assert plan_restart(_facts(3), ClusterConfig(num_proc=4, min_proc=2)).num_proc == 3
    assert plan_restart(_facts(1), ClusterConfig()).num_proc == 1


def test_a_restart_with_too_few_slots_says_how_many_it_needs() -> None:
    with pytest.raises(ServiceError, match="slots left is 3; expected at least 4"):
        plan_restart(_facts(3), ClusterConfig(num_proc=4))
    with pytest.raises(ServiceError, match="slots left is 1; expected at least 2"):
        plan_restart(_facts(1), ClusterConfig(num_proc=4, min_proc=2))


def test_min_proc_above_num_proc_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_proc is 3; expected at most num_proc=2"):
        ClusterConfig(num_proc=2, min_proc=3)
