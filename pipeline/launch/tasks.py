"""DRIVER. Barrier tasks that are as big as ranks: Spark starts all of them together or none.

Ranks may have more cores than the other tasks of a session (`cluster.cores_per_rank`). Spark calls that a task resource
profile: it changes what a task takes, and leaves the executors as they are, without dynamic allocation. Stand-alone
clusters know it from Spark 3.4 on, YARN and Kubernetes from 3.5.1 on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from pipeline.errors import ConfigError, ServiceError

WAIT_POLICY, ASLEEP = "OMP_WAIT_POLICY", "PASSIVE"
"""How OpenMP's threads, by which torch computes, wait for each other: they spin by default, on cores that others want.

Measured, one rank with two threads on two cores where others worked too (load 8 to 12): 3,400 to 5,500 rows/s spinning,
54,000 to 97,000 asleep. OpenMP reads the variable when it is loaded, so it has to be there when a worker starts.
"""


@contextlib.contextmanager
def threads_that_sleep(spark: SparkSession) -> Iterator[None]:
    """Of tasks that are submitted meanwhile, in Python workers of their own; a session that says how they wait wins."""
    variables = spark.sparkContext.environment
    if WAIT_POLICY in variables:
        yield
        return
    variables[WAIT_POLICY] = ASLEEP
    try:
        yield
    finally:
        variables.pop(WAIT_POLICY, None)


def run_together(
    spark: SparkSession, task: Callable[[Iterable[int]], Iterable[Any]], count: int, cores: int | None
) -> list[Any]:
    """What so many barrier tasks yield, each with so many cores; None for those of the session's tasks."""
    context = spark.sparkContext
    tasks = context.parallelize(range(count), count).barrier().mapPartitions(task)
    if cores is not None:
        tasks = tasks.withResources(ResourceProfile(profile_of_ranks(spark, cores)))
    return tasks.collect()


def run_apart(spark: SparkSession, task: Callable[[Iterable[int]], Iterable[Any]], count: int) -> list[Any]:
    """What so many ordinary tasks yield: where barrier stages cannot be used; Spark spreads them over free slots."""
    return spark.sparkContext.parallelize(range(count), count).mapPartitions(task).collect()


def profile_of_ranks(spark: SparkSession, cores: int | None) -> Any:
    """Spark's own profile of tasks with so many cores, and all else (GPUs) that the session's tasks have.

    Raises:
        ConfigError: the cluster knows no such profiles, or no executor has so many cores.
    """
    manager = spark.sparkContext._jsc.sc().resourceProfileManager()
    default = manager.defaultResourceProfile()
    if cores is None:
        return default
    requests = TaskResourceRequests().cpus(cores)
    for name, request in ResourceProfile(default).taskResources.items():
        if name != "cpus":
            requests = requests.resource(name, request.amount)
    profile = ResourceProfileBuilder().require(requests).build._java_resource_profile
    known = manager.getEquivalentProfile(profile)
    if known.isDefined():
        return known.get()
    try:
        manager.addResourceProfile(profile)
    except Py4JJavaError as error:
        raise ConfigError(
            f"cluster.cores_per_rank asks for tasks of {cores} cores, which {spark.sparkContext.master} refuses: "
            f"{error.java_exception.getMessage()}; expected at most the cores of an executor, on a stand-alone "
            "cluster, or YARN or Kubernetes with Spark 3.5.1; or set spark.task.cpus instead"
        ) from error
    return profile


def cores_of_executors(spark: SparkSession) -> int:
    """Cores of each executor of the session; 0 as long as there is none.

    Raises:
        ServiceError: they have not all the same number.
    """
    executors = spark.sparkContext._jsc.sc().statusStore().executorList(True)
    summaries = [executors.apply(number) for number in range(executors.size())]
    cores = {int(summary.totalCores()) for summary in summaries if summary.id() != "driver"}
    if len(cores) > 1:
        raise ServiceError(
            f"executors have {' or '.join(map(str, sorted(cores)))} cores, and cluster.cores_per_rank is executor; "
            "expected the same number in each; set spark.executor.cores, or cluster.cores_per_rank to a number"
        )
    return cores.pop() if cores else 0
