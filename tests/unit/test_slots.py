"""How long `num_proc: auto` waits for executors, which register one by one: plain facts and a clock that is set."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.training import ClusterConfig, DeadlineConfig
from pipeline.launch import slots
from pipeline.launch.resources import ClusterFacts
from pipeline.launch.settings import Executors, Promise, promise_of
from pipeline.launch.slots import is_settled, wait_for_slots, wait_for_slots_again

MASTER = "spark://host:7077"


def test_settings_promise_cores_on_a_stand_alone_master_and_executors_elsewhere() -> None:
    assert promise_of(MASTER, {"spark.executor.instances": "3"}) == Promise(), "stand-alone masters do not look at it"
    assert promise_of(MASTER, {"spark.cores.max": "9", "spark.executor.cores": "4"}) == Promise(cores=8)
    assert promise_of("yarn", {"spark.executor.instances": "3"}) == Promise(executors=3)
    assert promise_of("k8s://host", {}) == Promise(executors=2)


@pytest.mark.parametrize(
    ("slots_found", "found", "promise", "seconds", "settled"),
    [
        (0, Executors(0, 0, 0.0), Promise(), 1e9, False),
        (2, Executors(1, 2, 100.0), Promise(), 4.0, False),
        (2, Executors(1, 2, 100.0), Promise(), 6.0, True),
        (2, Executors(1, 2, 100.0), Promise(executors=3), 6.0, False),
        (6, Executors(3, 6, 100.0), Promise(executors=3), 0.1, True),
        (2, Executors(1, 2, 100.0), Promise(cores=6), 29.0, False),
        (6, Executors(3, 6, 100.0), Promise(cores=6), 0.1, True),
        (2, Executors(1, 2, 100.0), Promise(cores=6), 31.0, True),
    ],
)
def test_auto_counts_when_the_promise_is_kept_or_no_executor_has_come_for_a_while(
    slots_found: int, found: Executors, promise: Promise, seconds: float, settled: bool
) -> None:
    assert is_settled(slots_found, found, promise, 100.0 + seconds) == settled


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A session to whose executors of two cores, come at the given seconds, waiting costs no time."""

    def session(arrivals: list[float], master: str = MASTER, settings: Mapping[str, str] | None = None) -> Any:
        clock = SimpleNamespace(now=0.0)

        def there() -> list[float]:
            return [second for second in arrivals if second <= clock.now]

        def sleep(seconds: float) -> None:
            clock.now += seconds

        def found(_: Any) -> Executors:
            return Executors(len(there()), 2 * len(there()), max(there(), default=0.0))

        monkeypatch.setattr(time, "sleep", sleep)
        monkeypatch.setattr(time, "monotonic", lambda: clock.now)
        monkeypatch.setattr(time, "time", lambda: clock.now)
        monkeypatch.setattr(slots, "cluster_facts", lambda *_: ClusterFacts(master, 2 * len(there()), local=False))
        monkeypatch.setattr(slots, "executors_of", found)
        conf = SimpleNamespace(getAll=lambda: list((settings or {}).items()))
        context = SimpleNamespace(master=master, getConf=lambda: conf)
        return SimpleNamespace(sparkContext=context, clock=clock)

    return session


def test_auto_takes_all_executors_that_register_shortly_after_each_other(cluster: Any) -> None:
    spark = cluster([1.0, 3.0, 7.0])
    assert wait_for_slots(spark, ClusterConfig(master=MASTER)).slots == 6
    assert spark.clock.now < 13


def test_auto_waits_longer_for_promised_executors_and_not_a_moment_for_any_other(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spark = cluster([1.0, 20.0, 25.0], "yarn", {"spark.executor.instances": "2"})
    assert wait_for_slots(spark, ClusterConfig(master="yarn")).slots == 4
    assert spark.clock.now == 20.0
    assert [record.getMessage() for record in caplog.records] == [
        "train: waiting for 2 executors (spark.executor.instances); 0 slots for ranks are there",
        "train: waiting for 2 executors (spark.executor.instances); 2 slots for ranks are there",
    ]


def test_auto_waits_no_longer_than_the_launch_deadline(cluster: Any) -> None:
    options = {"master": MASTER, "deadlines": DeadlineConfig(launch=10)}
    for arrivals, settings in (([], {}), ([1.0], {"spark.cores.max": "20"})):
        spark = cluster(arrivals, settings=settings)
        assert wait_for_slots(spark, ClusterConfig(**options)).slots == 2 * len(arrivals)
        assert spark.clock.now == 10.0


def test_a_number_of_ranks_waits_for_as_many_slots(cluster: Any) -> None:
    spark = cluster([1.0, 20.0, 25.0])
    assert wait_for_slots(spark, ClusterConfig(master=MASTER, num_proc=3)).slots == 4
    assert spark.clock.now == 20.0


def test_a_restart_with_auto_waits_only_for_what_was_lost(cluster: Any) -> None:
    config = ClusterConfig(master=MASTER)
    spark = cluster([0.0, 0.0])
    assert wait_for_slots_again(spark, config, before=4).slots == 4
    assert spark.clock.now == 0.0
    spark = cluster([0.0, 12.0])
    assert wait_for_slots_again(spark, config, before=4).slots == 4
    assert spark.clock.now == 12.0
