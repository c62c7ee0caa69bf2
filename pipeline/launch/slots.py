"""DRIVER. Waits until the executors that a training is to run on have come: they register one by one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pyspark.sql import SparkSession

from pipeline.config.training import ClusterConfig
from pipeline.launch.cluster import cluster_facts, java_is_there, settings_of
from pipeline.launch.resources import ClusterFacts
from pipeline.launch.settings import Executors, Promise, promise_of

_POLL_SECONDS = 0.5
_REPLACE_SECONDS = 30.0
_QUIET_SECONDS = 5.0
_PROMISE_SECONDS = 30.0  # as long as Spark itself waits by default: spark.scheduler.maxRegisteredResourcesWaitingTime

logger = logging.getLogger(__name__)


def executors_of(spark: SparkSession) -> Executors:
    """The session's executors, as they are now."""
    listed = spark.sparkContext._jsc.sc().statusStore().executorList(True)
    found = [summary for n in range(listed.size()) if (summary := listed.apply(n)).id() != "driver"]
    newest = max((summary.addTime().getTime() / 1000 for summary in found), default=0.0)
    return Executors(len(found), sum(int(summary.totalCores()) for summary in found), newest)


def is_settled(slots: int, found: Executors, promise: Promise, now: float) -> bool:
    """Whether ``num_proc: auto`` may count: all that was promised is there, or no executor has come for a while."""
    quiet = now - found.newest
    return slots > 0 and (promise.kept(found) or quiet >= (_PROMISE_SECONDS if promise.is_known else _QUIET_SECONDS))


def wait_for_slots(spark: SparkSession, cluster: ClusterConfig) -> ClusterFacts:
    """The facts, once there are as many slots as ``num_proc`` asks for, or after the launch deadline as they are.

    ``auto`` waits for all executors that the settings promise, or until no further one has come for some seconds.
    """
    if cluster.num_proc != "auto":
        return _wait_for(spark, cluster, cluster.num_proc, cluster.deadlines.launch)
    master = str(spark.sparkContext.master)
    promise = promise_of(master, settings_of(spark))

    def settled(facts: ClusterFacts) -> bool:
        with java_is_there(master):
            return is_settled(facts.slots, executors_of(spark), promise, time.time())

    return _wait(spark, cluster, settled, str(promise), cluster.deadlines.launch)


def wait_for_slots_again(spark: SparkSession, cluster: ClusterConfig, before: int) -> ClusterFacts:
    """The facts after ranks were lost, `before` in number: a while for as many slots, longer only for the fewest."""
    facts = _wait_for(spark, cluster, before, min(_REPLACE_SECONDS, cluster.deadlines.launch))
    if facts.slots >= cluster.fewest_ranks:
        return facts
    return _wait_for(spark, cluster, cluster.fewest_ranks, cluster.deadlines.launch)


def _wait_for(spark: SparkSession, cluster: ClusterConfig, slots: int, seconds: float) -> ClusterFacts:
    return _wait(spark, cluster, lambda facts: facts.slots >= slots, f"{slots} slots", seconds)


def _wait(
    spark: SparkSession, cluster: ClusterConfig, done: Callable[[ClusterFacts], bool], what: str, seconds: float
) -> ClusterFacts:
    deadline = time.monotonic() + seconds
    said = None
    while True:
        facts = cluster_facts(spark, cluster)
        if facts.local or done(facts) or time.monotonic() >= deadline:
            return facts
        if facts.slots != said:
            said = facts.slots
            logger.info("train: waiting for %s; %d slots for ranks are there", what, facts.slots)
        time.sleep(_POLL_SECONDS)
