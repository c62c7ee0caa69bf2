"""DRIVER. How many ranks, how many threads each, and which host carries which rank: arithmetic, no Spark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.training import ClusterConfig
from pipeline.errors import ConfigError, ServiceError


@dataclass(frozen=True)
class ClusterFacts:
    """What a cluster has to offer.

    Attributes:
        slots: tasks that can run at the same time.
        task_cpus: ``spark.task.cpus``.
        local: driver and executors are one process of this machine.
    """

    master: str
    slots: int
    task_cpus: int = 1
    local: bool = True

    @property
    def cores(self) -> int:
        """Cores in all slots."""
        return self.slots * self.task_cpus


@dataclass(frozen=True)
class Resources:
    """What a training takes of it."""

    num_proc: int
    threads: int


def plan_resources(facts: ClusterFacts, cluster: ClusterConfig) -> Resources:
    """Ranks and threads per rank.

    ``num_proc: auto`` takes every slot. In local mode the cores are divided among the ranks, on a cluster a
    rank has the cores of its task.

    Raises:
        ConfigError: more ranks than a local master has slots.
        ServiceError: more ranks than the cluster has free slots; Spark itself would wait in silence.
    """
    if cluster.launcher == "in_process":
        return Resources(1, facts.cores)
    num_proc = facts.slots if cluster.num_proc == "auto" else cluster.num_proc
    if num_proc > facts.slots or num_proc < 1:
        raise _too_few_slots(facts, num_proc)
    threads = facts.cores // num_proc if facts.local else facts.task_cpus
    return Resources(num_proc, max(1, threads))


def plan_restart(facts: ClusterFacts, cluster: ClusterConfig) -> Resources:
    """The same after ranks were lost: as many as there are slots for, down to ``cluster.min_proc``.

    Raises:
        ServiceError: fewer slots are left than that.
    """
    wanted = facts.slots if cluster.num_proc == "auto" else min(cluster.num_proc, facts.slots)
    if wanted < cluster.fewest_ranks:
        raise ServiceError(
            f"the number of slots left is {facts.slots}; expected at least {cluster.fewest_ranks} (cluster.min_proc, "
            "by default cluster.num_proc); add executors and run the same command again to resume, or lower min_proc"
        )
    return plan_resources(facts, cluster.model_copy(update={"num_proc": wanted}))


def _too_few_slots(facts: ClusterFacts, num_proc: int) -> ConfigError | ServiceError:
    slots = f"{facts.slots} (tasks of spark.task.cpus={facts.task_cpus} that {facts.master} can run at once)"
    if facts.local:
        return ConfigError(
            f"cluster.num_proc is {num_proc}; expected at most {slots}; lower it or give cluster.master more cores"
        )
    return ServiceError(
        f"cluster.num_proc is {max(1, num_proc)}, but the number of free slots is {slots}; expected at least as many; "
        "add or free executors, or lower cluster.num_proc"
    )


@dataclass(frozen=True)
class Place:
    """Where a rank stands among the others, in Horovod's terms: local = on its host, cross = over hosts."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


def places(hosts: Sequence[str]) -> list[Place]:
    """The place of each task, given the host that each task runs on.

    Ranks of a host are neighbours, and rank 0 is the first task. Several executors on one host count as one
    host, so that local ranks stay unique there.
    """
    names = list(dict.fromkeys(hosts))
    order = sorted(range(len(hosts)), key=lambda task: (names.index(hosts[task]), task))
    rank_of = {task: rank for rank, task in enumerate(order)}
    local_rank_of = {task: sum(hosts[other] == hosts[task] for other in range(task)) for task in order}
    sizes = Counter(hosts)
    result = []
    for task, host in enumerate(hosts):
        local_rank = local_rank_of[task]
        peers = [name for name in names if sizes[name] > local_rank]
        result.append(Place(rank_of[task], len(hosts), local_rank, sizes[host], peers.index(host), len(peers)))
    return result
