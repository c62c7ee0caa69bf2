"""DRIVER. What Spark's settings say of ranks: settings that they cannot live with, and executors that will come.

Asked twice: of the settings in a configuration, by the dry run; and of a session, before anything long begins there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.training import ClusterConfig
from pipeline.errors import ConfigError

_OFF = ("", "0", "false")

_FORBIDDEN = {
    "spark.speculation": ("false", "a second copy of a rank would break training"),
    "spark.dynamicAllocation.enabled": ("false", "Spark refuses barrier stages with it"),
    "spark.executor.pyspark.memory": (
        "it unset",
        "it limits the address space, which torch cannot live with; use spark.executor.memoryOverhead",
    ),
    "spark.executorEnv.HOROVOD_AUTOTUNE": (
        "it unset",
        "Horovod 0.28.1 that has tuned itself crashes when it starts again in the same Python worker",
    ),
}


def forbidden(settings: Mapping[str, str]) -> list[str]:
    """A sentence for each setting under which ranks cannot work."""
    return [
        f"{key} is {settings[key]}; expected {expected}; {why}"
        for key, (expected, why) in _FORBIDDEN.items()
        if settings.get(key, "").strip().lower() not in _OFF
    ]


def refuse_settings(master: str, settings: Mapping[str, str], cluster: ClusterConfig) -> None:
    """Settings under which ranks cannot work, or with which there will never be as many as ``num_proc``.

    Raises:
        ConfigError: all of them at once.
    """
    if cluster.launcher == "in_process":
        return
    offences = forbidden(settings)
    most = most_ranks(master, settings, cluster)
    if cluster.num_proc != "auto" and most is not None and cluster.num_proc > most:
        offences.append(
            f"cluster.num_proc is {cluster.num_proc}; expected at most {most}, which go into "
            f"{promise_of(master, settings)}; lower it or ask for more"
        )
    if offences:
        raise ConfigError(*offences)


def most_ranks(master: str, settings: Mapping[str, str], cluster: ClusterConfig) -> int | None:
    """So many ranks go into the executors that the settings ask for; None where they do not tell."""
    each = _number(settings, "spark.executor.cores")
    cores = rank_cores(settings, cluster)
    if not is_standalone(master):
        executors, each = _number(settings, "spark.executor.instances"), each or 1  # as YARN and Kubernetes have it
    elif (most := _number(settings, "spark.cores.max")) is not None and each is not None:
        executors = most // each
    else:  # each executor takes all cores of its host
        return None if most is None or cores is None else most // cores
    return None if executors is None else executors * (each // (cores or each))


def rank_cores(settings: Mapping[str, str], cluster: ClusterConfig) -> int | None:
    """Cores of a rank on a cluster; None for all of an executor's, which are not named."""
    if cluster.cores_per_rank == "task":
        return task_cpus(settings)
    if cluster.cores_per_rank == "executor":
        return _number(settings, "spark.executor.cores")
    return cluster.cores_per_rank


def task_cpus(settings: Mapping[str, str]) -> int:
    """`spark.task.cpus`, by default 1."""
    return _number(settings, "spark.task.cpus") or 1


def _number(settings: Mapping[str, str], key: str) -> int | None:
    value = settings.get(key)
    if value is None:
        return None
    if not value.strip().isdecimal() or int(value) == 0:
        raise ConfigError(f"{key} is {value}; expected a whole number of at least 1; set it so")
    return int(value)


def is_standalone(master: str) -> bool:
    """Whether it is Spark's own cluster manager."""
    return master.startswith(("spark://", "local-cluster"))


@dataclass(frozen=True)
class Executors:
    """Those that have registered.

    Attributes:
        cores: of all of them together.
        newest: when the last one came, in seconds of the driver's clock; 0 if there is none.
    """

    count: int
    cores: int
    newest: float


@dataclass(frozen=True)
class Promise:
    """How many executors or cores the settings of a session ask for; None where they do not say."""

    executors: int | None = None
    cores: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether the settings say anything."""
        return self.executors is not None or self.cores is not None

    def kept(self, found: Executors) -> bool:
        """Whether all that was asked for is there."""
        return self.is_known and found.count >= (self.executors or 0) and found.cores >= (self.cores or 0)

    def __str__(self) -> str:
        if self.executors is not None:
            return f"{self.executors} executors (spark.executor.instances)"
        return f"{self.cores} cores (spark.cores.max)" if self.cores is not None else "further executors"


def promise_of(master: str, settings: Mapping[str, str]) -> Promise:
    """What Spark will start without dynamic allocation.

    Stand-alone masters start as many executors as go into ``spark.cores.max`` and know no number of executors; YARN and
    Kubernetes start ``spark.executor.instances``, by default 2.
    """
    if is_standalone(master):
        most, each = _number(settings, "spark.cores.max"), _number(settings, "spark.executor.cores") or 1
        return Promise(cores=most // each * each) if most else Promise()
    return Promise(executors=_number(settings, "spark.executor.instances") or 2)
