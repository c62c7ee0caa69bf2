"""DRIVER. Training from the driver's side: what is checked before, what is started, and what comes back."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from typing import Any

from pyspark.sql import SparkSession

from pipeline import storage
from pipeline.config.training import ClusterConfig, CollectiveName, DeadlineConfig
from pipeline.dataset import Dataset
from pipeline.launch.attempt import Attempt, Launcher, same_on_all_ranks
from pipeline.launch.barrier import BarrierLauncher
from pipeline.launch.budget import RestartBudget
from pipeline.launch.cluster import refuse_unfit
from pipeline.launch.estimate import resource_report
from pipeline.launch.horovod_run import HorovodRunLauncher
from pipeline.launch.in_process import run_in_process
from pipeline.launch.preflight import preflight, preflight_here
from pipeline.launch.progress import ProgressDisplay
from pipeline.launch.rank import TRAIN, Body, RankCall
from pipeline.launch.record import RunRecord
from pipeline.launch.resources import ClusterFacts, Resources, plan_resources, plan_restart
from pipeline.launch.slots import wait_for_slots, wait_for_slots_again
from pipeline.launch.tasks import threads_that_sleep
from pipeline.launch.watch import LostRanksError
from pipeline.stack import chosen_by, collective_of
from pipeline.status_file import StatusFile
from pipeline.task import Reporter, TrainingResult, TrainingTask

logger = logging.getLogger(__name__)


def launch_training(
    spark: SparkSession | None,
    task: TrainingTask,
    cluster: ClusterConfig,
    *,
    tracker: Reporter | None = None,
    status: StatusFile | None = None,
    quiet: bool = True,
    body: Body | str = TRAIN,
) -> TrainingResult:
    """Train on the cluster, or in this process with ``cluster.launcher: in_process``.

    Works in the main thread, where Ctrl-C stops it, and in any other.

    Args:
        spark: the session whose executors carry the ranks; None for in_process.
        task: what to train.
        cluster: how many ranks, which launcher, and deadlines.
        tracker: is told progress and metrics, in order.
        status: of the command that trains; by default one that ends with the training.
        quiet: no progress display.
        body: what a rank runs.

    Raises:
        RankFailedError: the user's code failed on a rank; the detail is the first failing rank's traceback.
        InterruptedRunError: interrupted, or a rank was lost or hung; the same call resumes.
        ConfigError, ServiceError: the cluster cannot carry the ranks; nothing was started.
    """
    status = status or StatusFile(task.training.run_url)
    with ProgressDisplay("train", quiet) as display, status.stage("train", "starting"):
        listeners = [display, *([tracker] if tracker else [])]
        with contextlib.closing(RunRecord(task.training.run_url, listeners, status)) as record:
            result: TrainingResult = _launch(spark, task, cluster, record, body)
    return result


def _launch(
    spark: SparkSession | None, task: TrainingTask, cluster: ClusterConfig, record: RunRecord, body: Body | str
) -> Any:
    if cluster.launcher == "in_process" or spark is None:
        record.state("running", world_size=1, collective="none")
        return run_in_process(body, task, record)
    began = time.monotonic()
    collective = collective_of(cluster)
    refuse_unfit(spark, cluster)
    facts = wait_for_slots(spark, cluster)
    resources = plan_resources(facts, cluster)
    rank_mib = _warned_of(task, cluster, facts) if body == TRAIN else 0
    if not facts.local:
        preflight(spark, task, cluster, resources, rank_mib)
    elif body == TRAIN:
        preflight_here(task)
    logger.info("train: %d ranks over %s", resources.num_proc, chosen_by(cluster.collective, collective))
    if cluster.horovod_timeline and resources.num_proc == 1:
        logger.warning("train: one rank sums nothing with others; cluster.horovod_timeline writes no timeline")
    budget = RestartBudget(cluster.max_failures, cluster.max_preemptions)
    while True:
        record.state("running", world_size=resources.num_proc, restarts=budget.restarts, collective=collective)
        launcher = _launcher(spark, cluster, resources)
        attempt = Attempt(spark, launcher, resources.num_proc, cluster.deadlines, record, began)
        try:
            threaded = dataclasses.replace(task, threads=resources.threads)
            with threads_that_sleep(spark):
                return same_on_all_ranks(attempt.run(_call(body, threaded, collective, cluster)))
        except LostRanksError as error:
            record.event(f"{error} ({budget.spend(error)})")
            resources = plan_restart(wait_for_slots_again(spark, cluster, resources.num_proc), cluster)
            record.event(f"restarting from the last checkpoint on {resources.num_proc} ranks")


def _warned_of(task: TrainingTask, cluster: ClusterConfig, facts: ClusterFacts) -> int:
    """The MiB that a rank is estimated to need, after a warning of all that may be slow or not fit."""
    dataset = Dataset.open(task.dataset_url, task.content_id)
    report = resource_report(dataset, task.model, task.training, cluster, task.user_code, facts)
    for warning in report.warnings:
        logger.warning("train: %s", warning)
    return sum(report.memory.values())


def _launcher(spark: SparkSession, cluster: ClusterConfig, resources: Resources) -> Launcher:
    if cluster.launcher == "horovod":
        return HorovodRunLauncher(spark, cluster.deadlines.launch)
    return BarrierLauncher(spark, resources.cores)


def _call(body: Body | str, task: TrainingTask, collective: CollectiveName, cluster: ClusterConfig) -> RankCall:
    """The collective's own time-outs are later than ours, which know the rank to blame."""
    deadlines = cluster.deadlines
    longest = int(max(deadlines.launch, deadlines.step, deadlines.silence)) + 60
    variables = _horovod_deadlines(deadlines, longest) if collective == "horovod" else {}
    timeline = _timeline_url(task.training.run_url) if cluster.horovod_timeline else None
    return RankCall(
        body, task, collective, longest, variables=variables, timeline=timeline, shared_memory=cluster.shared_memory
    )


def _timeline_url(run_url: str) -> str:
    """Each attempt has a file of its own, so that a restart keeps what led to it."""
    return storage.join(run_url, "timeline", f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.json")


def _horovod_deadlines(deadlines: DeadlineConfig, longest: int) -> dict[str, str]:
    """By default Horovod waits for ever."""
    return {
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(longest),
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(int(deadlines.step)),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(longest),
    }
