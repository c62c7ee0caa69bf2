"""How many ranks, how many threads, and where: plain arithmetic."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.config.load import parse_section
from pipeline.config.training import ClusterConfig
from pipeline.errors import ConfigError, ServiceError
from pipeline.launch.resources import ClusterFacts, Place, Resources, local_facts, places, plan_resources

LOCAL = ClusterFacts("local[4]", slots=4)
CLUSTER = ClusterFacts("spark://host:7077", slots=6, task_cpus=2, local=False)


def test_auto_takes_every_slot() -> None:
    assert plan_resources(LOCAL, ClusterConfig()) == Resources(4, 1)
    assert plan_resources(CLUSTER, ClusterConfig()) == Resources(6, 2)


def test_local_ranks_share_the_cores_and_cluster_ranks_have_those_of_their_task() -> None:
    assert plan_resources(LOCAL, ClusterConfig(num_proc=2)) == Resources(2, 2)
    assert plan_resources(LOCAL, ClusterConfig(num_proc=3)) == Resources(3, 1)
    assert plan_resources(CLUSTER, ClusterConfig(num_proc=2)) == Resources(2, 2)


def test_ranks_that_ask_for_cores_get_a_task_of_their_own_size_on_a_cluster() -> None:
    assert plan_resources(CLUSTER, ClusterConfig(cores_per_rank=2)) == Resources(6, 2, cores=2)
    assert plan_resources(CLUSTER, ClusterConfig(cores_per_rank="executor", num_proc=2)) == Resources(2, 2, cores=2)
    with pytest.raises(ServiceError, match=r"free slots is 6 \(tasks of cluster.cores_per_rank=2 that spark://"):
        plan_resources(CLUSTER, ClusterConfig(cores_per_rank=2, num_proc=7))


def test_in_local_mode_the_cores_of_a_rank_are_arithmetic() -> None:
    of_two = local_facts("local[5]", 5, 1, 2)
    assert (of_two.slots, plan_resources(of_two, ClusterConfig(cores_per_rank=2))) == (2, Resources(2, 2))
    assert plan_resources(of_two, ClusterConfig(cores_per_rank=2, num_proc=1)) == Resources(1, 4)
    assert plan_resources(local_facts("local[5]", 5, 1, "executor"), ClusterConfig()) == Resources(1, 5)
    assert local_facts("local[4]", 2, 2, "task") == ClusterFacts("local[4]", 2, 2)
    assert local_facts("local[4]", 2, 2, 1).slots == 2, "Spark runs no more tasks than it has slots"
    with pytest.raises(ConfigError, match=r"cores_per_rank is 6; expected at most the 5 cores of local\[5\]"):
        local_facts("local[5]", 5, 1, 6)


def test_a_size_that_a_rank_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.cores_per_rank is 0; expected task or executor or at least 1"):
        parse_section(ClusterConfig, {"cores_per_rank": 0}, "cluster")
    with pytest.raises(ValidationError, match="cores_per_rank is executor with launcher horovod"):
        ClusterConfig(cores_per_rank="executor", launcher="horovod")


def test_one_rank_in_process_has_all_cores() -> None:
    assert plan_resources(LOCAL, ClusterConfig(launcher="in_process", num_proc=9)) == Resources(1, 4)


def test_more_ranks_than_slots_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"num_proc is 5; expected at most 4"):
        plan_resources(LOCAL, ClusterConfig(num_proc=5))
    with pytest.raises(ServiceError, match=r"num_proc is 7, but the number of free slots is 6"):
        plan_resources(CLUSTER, ClusterConfig(num_proc=7))


def test_a_cluster_without_any_slot_carries_no_rank() -> None:
    with pytest.raises(ServiceError, match="free slots is 0"):
        plan_resources(ClusterFacts("spark://host:7077", slots=0, local=False), ClusterConfig())


def test_ranks_of_one_host_are_neighbours_with_their_own_local_ranks() -> None:
    assert places(["a", "b", "a"]) == [
        Place(rank=0, world_size=3, local_rank=0, local_size=2, cross_rank=0, cross_size=2),
        Place(rank=2, world_size=3, local_rank=0, local_size=1, cross_rank=1, cross_size=2),
        Place(rank=1, world_size=3, local_rank=1, local_size=2, cross_rank=0, cross_size=1),
    ]


def test_places_agree_with_horovods_own_assignment_when_hosts_are_in_order() -> None:
    hosts = pytest.importorskip("horovod.runner.common.util.hosts")
    theirs = hosts.get_host_assignments([hosts.HostInfo("a", 3), hosts.HostInfo("b", 1), hosts.HostInfo("c", 2)], 6)
    ours = places(["a", "a", "a", "b", "c", "c"])
    assert [(s.rank, s.size, s.local_rank, s.local_size, s.cross_rank, s.cross_size) for s in theirs] == [
        (p.rank, p.world_size, p.local_rank, p.local_size, p.cross_rank, p.cross_size) for p in ours
    ]
