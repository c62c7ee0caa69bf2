"""DRIVER. How many ranks, how many threads each, and which host carries which rank: arithmetic, no Spark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.training import ClusterConfig, CoresPerRank
from pipeline.errors import ConfigError, ServiceError


@dataclass(frozen=True)
class ClusterFacts:
    """What a cluster has to offer.

    Attributes:
        slots: ranks that can run at the same time.
        task_cpus: cores of the task that a rank is: ``spark.task.cpus``, or what ``cluster.cores_per_rank`` says.
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
    """What a training takes of it.

    Attributes:
        cores: of the task that a rank is, where they are asked for in a resource profile; None for the session's tasks.
    """

    num_proc: int
    threads: int
    cores: int | None = None


def local_facts(master: str, slots: int, task_cpus: int, cores_per_rank: CoresPerRank) -> ClusterFacts:
    """The facts of a local master with so many slots.

    Local mode knows no resource profiles, and needs none: driver and executor are one process, nothing else runs in
    its cores, and how many ranks share them is arithmetic.

    Raises:
        ConfigError: a rank is to have more cores than there are.
    """
    if cores_per_rank == "task":
        return ClusterFacts(master, slots, task_cpus)
    cores = slots * task_cpus
    own = cores if cores_per_rank == "executor" else cores_per_rank
    if own > cores:
        raise ConfigError(
            f"cluster.cores_per_rank is {own}; expected at most the {cores} cores of {master}; "
            "lower it or give cluster.master more cores"
        )
    return ClusterFacts(master, min(slots, cores // own), own)


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
        raise _too_few_slots(facts, num_proc, cluster.cores_per_rank)
    threads = facts.cores // num_proc if facts.local else facts.task_cpus
    asked = not facts.local and cluster.cores_per_rank != "task"
    return Resources(num_proc, max(1, threads), facts.task_cpus if asked else None)


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


def _too_few_slots(facts: ClusterFacts, num_proc: int, cores_per_rank: CoresPerRank) -> ConfigError | ServiceError:
    by_task = cores_per_rank == "task"
    size = f"spark.task.cpus={facts.task_cpus}" if by_task else f"cluster.cores_per_rank={cores_per_rank}"
    slots = f"{facts.slots} (tasks of {size} that {facts.master} can run at once)"
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
