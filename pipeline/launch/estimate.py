"""DRIVER. What a training will take, told before it starts: ranks, memory, and the spark-submit line that fits."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.training import MOST_RANKS_IN_MEMORY, ClusterConfig, ModelConfig, TrainingConfig
from pipeline.dataset import Dataset
from pipeline.launch.memory import parameter_bytes, rank_memory, row_bytes
from pipeline.launch.resources import ClusterFacts, Resources, local_facts, plan_resources
from pipeline.launch.session import is_local
from pipeline.launch.settings import is_standalone, rank_cores, refuse_settings, task_cpus
from pipeline.machine import free_memory_bytes, usable_cores
from pipeline.task import UserCode

_ONE_MACHINE_BYTES = 2 << 30


@dataclass(frozen=True)
class ResourceReport:
    """What `pipeline train --dry-run` prints; a training logs the warnings.

    Attributes:
        resources: None where only a running cluster could tell.
        memory: MiB of one rank, by what takes it.
        warnings: sentences about what will be slow or not fit.
        submit: the spark-submit line that gives these resources.
        unknown: what is said of the ranks where only a running cluster could tell.
    """

    resources: Resources | None
    memory: Mapping[str, int]
    warnings: tuple[str, ...]
    submit: str
    unknown: str = "one rank per slot of the cluster"

    def lines(self) -> list[str]:
        """For people."""
        ranks = self.resources
        first = f"{ranks.num_proc} ranks, {ranks.threads} threads each" if ranks else self.unknown
        parts = ", ".join(f"{name} {mib:,}" for name, mib in self.memory.items())
        return [
            f"ranks: {first}",
            f"memory of a rank: about {sum(self.memory.values()):,} MiB ({parts})",
            *(f"warning: {warning}" for warning in self.warnings),
            f"on a cluster: {self.submit}",
        ]


def resource_report(
    dataset: Dataset,
    model: ModelConfig,
    training: TrainingConfig,
    cluster: ClusterConfig,
    user_code: UserCode | None = None,
    facts: ClusterFacts | None = None,
) -> ResourceReport:
    """The report for training on this dataset.

    Args:
        dataset: what to train on.
        model: whose weights are counted.
        training: batch sizes, optimizer, averaging.
        cluster: how many ranks are asked for.
        user_code: a model from code, if there is one.
        facts: of the session at hand; by default what `cluster.master` promises.

    Raises:
        ConfigError: more ranks than a local master has slots.
    """
    facts = facts or promised_facts(cluster)
    resources = _planned(facts, cluster)
    weights = parameter_bytes(model, dataset.schema, user_code)
    shared = facts is not None and facts.local and resources is not None and _shares_memory(cluster, resources)
    rows = [dataset.manifest.rows(split) for split in ("train", "validation") if split in dataset.manifest.splits]
    memory = rank_memory(weights, row_bytes(dataset.schema), training, rows=rows, shared_memory=shared)
    return ResourceReport(
        resources=resources,
        memory=memory,
        warnings=tuple(_warnings(dataset, training, facts, resources, memory)),
        submit=submit_line(cluster, resources, sum(memory.values())),
        unknown=_unknown(cluster),
    )


def refuse_unfit_settings(cluster: ClusterConfig) -> None:
    """What can be known of the ranks from the configuration alone.

    Raises:
        ConfigError: settings under which ranks cannot work, or with which there will never be room for all of them.
    """
    refuse_settings(cluster.master, cluster.spark, cluster)
    if (facts := promised_facts(cluster)) is not None:
        plan_resources(facts, cluster)


def _shares_memory(cluster: ClusterConfig, resources: Resources) -> bool:
    """Whether ranks of one host will exchange through its memory."""
    several = 1 < resources.num_proc <= MOST_RANKS_IN_MEMORY
    return several and cluster.shared_memory and not cluster.horovod_timeline and cluster.launcher != "in_process"


def _planned(facts: ClusterFacts | None, cluster: ClusterConfig) -> Resources | None:
    if facts is not None:
        return plan_resources(facts, cluster)
    cores = rank_cores(cluster.spark, cluster)
    return None if cluster.num_proc == "auto" or cores is None else Resources(cluster.num_proc, cores)


def _unknown(cluster: ClusterConfig) -> str:
    place = "executor" if cluster.cores_per_rank == "executor" else "slot"
    ranks = f"one rank per {place} of the cluster" if cluster.num_proc == "auto" else f"{cluster.num_proc} ranks"
    cores = rank_cores(cluster.spark, cluster)
    return f"{ranks}, {cores} threads each" if cores else f"{ranks}, with all cores of an executor each"


def promised_facts(cluster: ClusterConfig) -> ClusterFacts | None:
    """What a local master will offer; None for others, which only a session can tell."""
    master = cluster.master
    if not is_local(master):
        return None
    cores = re.match(r"local(?:\[(\d+|\*))?", master)
    count = cores[1] if cores and cores[1] else "1"
    slots, cpus = usable_cores() if count == "*" else int(count), task_cpus(cluster.spark)
    return local_facts(master, slots // cpus, cpus, cluster.cores_per_rank)


def submit_line(cluster: ClusterConfig, resources: Resources | None, rank_mib: int) -> str:
    """spark-submit with what ranks need; they live beside the executor's JVM, in its memory overhead."""
    cores = resources.threads if resources else rank_cores(cluster.spark, cluster)
    own = cluster.cores_per_rank == "task"
    ranks = resources.num_proc if resources else None if cluster.num_proc == "auto" else cluster.num_proc
    options = {
        "spark.task.cpus": str(cores if own else task_cpus(cluster.spark)),
        **_of_executors(cluster.master, ranks, rank_mib),
        "spark.dynamicAllocation.enabled": "false",
        "spark.speculation": "false",
    }
    confs = [f"--conf {shlex.quote(f'{key}={value}')}" for key, value in options.items()]
    master = "MASTER" if is_local(cluster.master) else cluster.master
    size = [f"--executor-cores {cores or 'CORES'}", *_in_all(cluster.master, ranks, cores), "--executor-memory 1g"]
    return " ".join(["spark-submit --master", shlex.quote(master), *size, *confs, "jobs/train.py CONFIG"])


def _of_executors(master: str, ranks: int | None, rank_mib: int) -> dict[str, str]:
    """Number and memory of executors, as YARN and Kubernetes take them; a stand-alone master looks at neither."""
    if is_standalone(master):
        return {}
    overhead = math.ceil(rank_mib * 1.2 / 256) * 256
    return {"spark.executor.instances": str(ranks or "N"), "spark.executor.memoryOverhead": f"{overhead}m"}


def _in_all(master: str, ranks: int | None, cores: int | None) -> list[str]:
    """A stand-alone master starts what goes into so many cores, by default all that it has; others do not look at it.

    A local master stands for one of which nothing is known, so that it is told both.
    """
    if ranks is None or not (is_standalone(master) or is_local(master)):
        return []
    return [f"--total-executor-cores {ranks * cores if cores else f'{ranks}*CORES'}"]


def _warnings(
    dataset: Dataset,
    training: TrainingConfig,
    facts: ClusterFacts | None,
    resources: Resources | None,
    memory: Mapping[str, int],
) -> list[str]:
    found = []
    if facts is not None and facts.local and resources is not None:
        found += _oversubscription(facts, resources, sum(memory.values()))
    if resources is not None and training.global_batch_size < resources.num_proc:
        found.append(
            f"global_batch_size {training.global_batch_size} gives some of the {resources.num_proc} ranks no row "
            "in a step"
        )
    data = dataset.manifest.rows("train") * row_bytes(dataset.schema)
    if (facts is None or not facts.local) and data < _ONE_MACHINE_BYTES:
        found.append(
            f"the train split is {data / 2**20:,.0f} MiB in memory: one machine is enough "
            "(cluster.master: local[*]), and saves the network between ranks"
        )
    return found


def _oversubscription(facts: ClusterFacts, resources: Resources, rank_mib: int) -> list[str]:
    found = []
    if (busy := resources.num_proc * resources.threads) > (cores := usable_cores()):
        found.append(
            f"{facts.master} promises {busy} cores, but this machine has {cores}: ranks will wait for each other"
        )
    available = free_memory_bytes() >> 20
    if (needed := resources.num_proc * rank_mib) > available:
        found.append(f"the ranks need about {needed:,} MiB, but {available:,} MiB are free: lower cluster.num_proc")
    return found
