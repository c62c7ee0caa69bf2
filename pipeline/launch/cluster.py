"""DRIVER. What the Spark session at hand is able to run, asked from Spark itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from pipeline.config.training import ClusterConfig
from pipeline.errors import ConfigError, InterruptedRunError
from pipeline.launch.resources import ClusterFacts, local_facts
from pipeline.launch.session import is_local
from pipeline.launch.tasks import cores_of_executors, profile_of_ranks


def cluster_facts(spark: SparkSession, cluster: ClusterConfig) -> ClusterFacts:
    """Slots for ranks and their cores, as they are now.

    Raises:
        InterruptedRunError: the session's Java process is gone.
        ConfigError, ServiceError: ranks cannot have the cores of ``cluster.cores_per_rank``.
    """
    master = str(spark.sparkContext.master)
    with java_is_there(master):
        return _local_facts(spark, master, cluster) if is_local(master) else _facts(spark, master, cluster)


@contextlib.contextmanager
def java_is_there(master: str) -> Iterator[None]:
    """Spark is asked inside.

    Raises:
        InterruptedRunError: the session's Java process is gone.
    """
    try:
        yield
    except (Py4JError, ConnectionError) as error:
        raise InterruptedRunError(
            f"the Java process of the Spark session on {master} is gone; expected it to live; "
            "it was killed (out of memory?); run the same command again to resume"
        ) from error


def _local_facts(spark: SparkSession, master: str, cluster: ClusterConfig) -> ClusterFacts:
    return local_facts(master, _slots(spark, None), _task_cpus(spark), cluster.cores_per_rank)


def _facts(spark: SparkSession, master: str, cluster: ClusterConfig) -> ClusterFacts:
    wanted = cluster.cores_per_rank
    cores = cores_of_executors(spark) if wanted == "executor" else None if wanted == "task" else wanted
    if cores == 0:  # no executor yet
        return ClusterFacts(master, slots=0, local=False)
    return ClusterFacts(master, _slots(spark, cores), cores or _task_cpus(spark), local=False)


def _slots(spark: SparkSession, cores: int | None) -> int:
    """How many tasks can run at once, each with so many cores; None for the session's own tasks."""
    return int(spark.sparkContext._jsc.sc().maxNumConcurrentTasks(profile_of_ranks(spark, cores)))


def _task_cpus(spark: SparkSession) -> int:
    return int(spark.sparkContext.getConf().get("spark.task.cpus", "1"))


def driver_addresses(spark: SparkSession) -> tuple[str, str]:
    """The address to listen on, and the one by which executors reach the driver."""
    conf = spark.sparkContext.getConf()
    host = str(conf.get("spark.driver.host", "127.0.0.1"))
    return str(conf.get("spark.driver.bindAddress", host)), host


def refuse_forbidden_settings(spark: SparkSession) -> None:
    """Settings under which ranks cannot work.

    Raises:
        ConfigError: all of them at once.
    """
    conf = spark.sparkContext.getConf()
    offences = [
        f"{key} is {conf.get(key)}; expected {expected}; {why}"
        for key, bad, expected, why in _FORBIDDEN
        if (bad is None and conf.get(key) not in (None, "0", "false")) or (bad is not None and conf.get(key) == bad)
    ]
    if offences:
        raise ConfigError(*offences)


_FORBIDDEN = [
    ("spark.speculation", "true", "false", "a second copy of a rank would break training"),
    ("spark.dynamicAllocation.enabled", "true", "false", "Spark refuses barrier stages with it"),
    (
        "spark.executor.pyspark.memory",
        None,
        "it unset",
        "it limits the address space, which torch cannot live with; use spark.executor.memoryOverhead",
    ),
    (
        "spark.executorEnv.HOROVOD_AUTOTUNE",
        None,
        "it unset",
        "Horovod 0.28.1 that has tuned itself crashes when it starts again in the same Python worker",
    ),
]
