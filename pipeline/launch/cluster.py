"""DRIVER. What the Spark session at hand is able to run, asked from Spark itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from pipeline.config.training import ClusterConfig
from pipeline.errors import InterruptedRunError
from pipeline.launch.resources import ClusterFacts, local_facts, plan_resources
from pipeline.launch.session import is_local
from pipeline.launch.settings import refuse_settings, task_cpus
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
    return local_facts(master, _slots(spark, None), task_cpus(settings_of(spark)), cluster.cores_per_rank)


def _facts(spark: SparkSession, master: str, cluster: ClusterConfig) -> ClusterFacts:
    wanted = cluster.cores_per_rank
    cores = cores_of_executors(spark) if wanted == "executor" else None if wanted == "task" else wanted
    if cores == 0:  # no executor yet
        return ClusterFacts(master, slots=0, local=False)
    return ClusterFacts(master, _slots(spark, cores), cores or task_cpus(settings_of(spark)), local=False)


def _slots(spark: SparkSession, cores: int | None) -> int:
    """How many tasks can run at once, each with so many cores; None for the session's own tasks."""
    return int(spark.sparkContext._jsc.sc().maxNumConcurrentTasks(profile_of_ranks(spark, cores)))


def leaving_executors(spark: SparkSession) -> dict[str, str]:
    """Hosts, by number of executor, that Spark was told will be taken away soon and whose executors still live.

    Their worker was decommissioned (`spark.decommission.enabled`): a spot node got its notice, or a host is emptied.
    None where Spark does not tell.
    """
    context = spark.sparkContext
    if is_local(str(context.master)):
        return {}
    try:
        scheduler, listed = context._jsc.sc().taskScheduler(), context._jsc.sc().statusStore().executorList(True)
        executors = [listed.apply(number) for number in range(listed.size())]
        return {
            executor.id(): executor.hostPort().rsplit(":", 1)[0]
            for executor in executors
            if scheduler.getExecutorDecommissionState(executor.id()).isDefined()
        }
    except (Py4JError, ConnectionError):
        return {}


def driver_addresses(spark: SparkSession) -> tuple[str, str]:
    """The address to listen on, and the one by which executors reach the driver."""
    conf = spark.sparkContext.getConf()
    host = str(conf.get("spark.driver.host", "127.0.0.1"))
    return str(conf.get("spark.driver.bindAddress", host)), host


def refuse_unfit(spark: SparkSession, cluster: ClusterConfig) -> None:
    """A session that cannot carry the ranks, whatever comes: known from its settings, before anything long begins.

    Raises:
        ConfigError: settings under which ranks cannot work, or with which there will never be room for all of them.
    """
    if cluster.launcher == "in_process":
        return
    master = str(spark.sparkContext.master)
    refuse_settings(master, settings_of(spark), cluster)
    if is_local(master):
        plan_resources(cluster_facts(spark, cluster), cluster)


def settings_of(spark: SparkSession) -> dict[str, str]:
    """All settings of the session's context."""
    return dict(spark.sparkContext.getConf().getAll())
