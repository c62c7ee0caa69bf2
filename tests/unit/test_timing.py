"""Where an epoch's time went, compared over ranks: the rank that others wait for stands out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.training.timing import Clock
from tests.thread_ranks import ThreadCollective, on_thread_ranks

WAITED, REDUCING, SAVING = (1.0, 1.0, 5.0), (6.0, 6.0, 0.5), (0.0, 1.0, 0.0)


def _shares(collective: ThreadCollective) -> tuple[dict[str, float], Clock]:
    clock = Clock(waited=WAITED[collective.rank], saving=SAVING[collective.rank], rows=1000, training_seconds=10.0)
    learner: Any = SimpleNamespace(collective=collective, seconds_reducing=REDUCING[collective.rank])
    return clock.shares(learner), clock


def test_all_ranks_learn_who_is_slow_and_where_each_spends_its_time_in_one_exchange() -> None:
    named: list[list[str]] = []

    def body(collective: ThreadCollective) -> tuple[dict[str, float], Clock]:
        found = _shares(collective)
        named.append(collective.names)
        return found

    (first, clock), *others = on_thread_ranks(3, body)
    assert all(shares == first for shares, _ in others)
    assert all(names == ["gather objects"] for names in named)
    assert first["straggler_ratio"] == pytest.approx(9.5 / 4.0)
    assert (first["data_wait_share"], first["communication_share"]) == (0.1, 0.6)
    assert first["checkpoint_share"] == 0.1
    assert clock.ranks == [
        {"rank": 0, "waiting": 1.0, "communication": 6.0, "saving": 0.0, "computing": 3.0},
        {"rank": 1, "waiting": 1.0, "communication": 6.0, "saving": 1.0, "computing": 2.0},
        {"rank": 2, "waiting": 5.0, "communication": 0.5, "saving": 0.0, "computing": 4.5},
    ]
