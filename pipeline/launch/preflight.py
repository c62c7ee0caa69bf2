"""DRIVER. Looks at every executor before anything long begins, and says all that is wrong at once."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from pipeline import storage
from pipeline.config.training import ClusterConfig
from pipeline.errors import ServiceError, StorageError
from pipeline.launch.channel import ChannelServer
from pipeline.launch.cluster import driver_addresses, refuse_unfit, settings_of
from pipeline.launch.job import run_job
from pipeline.launch.probe import Finding, Question, look_around, unreadable, versions
from pipeline.launch.resources import Resources, plan_resources
from pipeline.launch.slots import wait_for_slots
from pipeline.launch.tasks import run_apart, run_together
from pipeline.launch.verdict import judge, table, tight_memory
from pipeline.launch.watch import python_part
from pipeline.task import TrainingTask

logger = logging.getLogger(__name__)


def preflight(
    spark: SparkSession, task: TrainingTask, cluster: ClusterConfig, resources: Resources, rank_mib: int
) -> list[Finding]:
    """What each of as many tasks as there will be ranks finds where it runs; a table of it goes to the log.

    Args:
        spark: the session whose executors are looked at.
        task: names the run folder and the dataset.
        cluster: deadlines, and whether there are barrier stages.
        resources: how many ranks there will be, and how big.
        rank_mib: what a rank is estimated to need.

    Raises:
        ServiceError: everything that would make ranks fail: differing versions, no way to the driver, storage that
            is not shared, a dataset that cannot be read, one GPU for two ranks.
    """
    findings = explore(spark, cluster, resources, task.training.run_url, _dataset_files(task))
    for line in table(findings, versions()):
        logger.info("preflight: %s", line)
    master, settings = str(spark.sparkContext.master), settings_of(spark)
    for warning in tight_memory(findings, rank_mib, resources.threads, master, settings):
        logger.warning("preflight: %s", warning)
    if offences := judge(findings, versions(), task.training.device):
        raise ServiceError(*offences)
    return findings


def examine(spark: SparkSession, cluster: ClusterConfig, run_url: str) -> tuple[list[Finding], list[str]]:
    """What `pipeline doctor --cluster` shows: what is found where each rank would run, and all that is wrong with it.

    Raises:
        ConfigError, ServiceError: the session cannot carry the ranks, or its executors cannot answer.
    """
    refuse_unfit(spark, cluster)
    resources = plan_resources(wait_for_slots(spark, cluster), cluster)
    findings = explore(spark, cluster, resources, run_url)
    return findings, judge(findings, versions())


def explore(
    spark: SparkSession,
    cluster: ClusterConfig,
    resources: Resources,
    run_url: str,
    files: Sequence[tuple[str, bytes]] = (),
) -> list[Finding]:
    """What tasks find, one for each rank to be, in their order.

    Args:
        spark: the session whose executors are looked at.
        cluster: deadlines, and whether there are barrier stages.
        resources: how many ranks there will be, and how big.
        run_url: where a marker is put that all must see.
        files: urls that all must read, and how they begin.

    Raises:
        ServiceError: executors cannot run this package's code at all, or not within `cluster.deadlines.launch`.
    """
    with ChannelServer(*driver_addresses(spark)) as channel, _marker(run_url) as marker:
        question = Question((channel.address.host, channel.address.port), (marker, *files))
        ask = partial(_ask, spark, question, resources, cluster.launcher == "barrier")
        try:
            return run_job(spark, "preflight", ask, cluster.deadlines.launch)
        except Py4JError as error:
            raise _no_answer(error) from error


def preflight_here(task: TrainingTask) -> None:
    """The part that is left where driver and executors are one process: the run folder and the dataset.

    Raises:
        ServiceError: the run folder cannot be written, or the dataset cannot be read.
    """
    with _marker(task.training.run_url) as marker:
        troubles = [unreadable(url, start) for url, start in (marker, *_dataset_files(task))]
    if offences := [trouble for trouble in troubles if trouble]:
        raise ServiceError(*offences)


def _ask(spark: SparkSession, question: Question, resources: Resources, together: bool) -> list[Finding]:
    task = partial(_answer, replace(question, together=together))
    if together:
        return run_together(spark, task, resources.num_proc, resources.cores)
    return run_apart(spark, task, resources.num_proc)


def _no_answer(error: Py4JError) -> ServiceError:
    detail = python_part(str(error))
    return ServiceError(
        f"the executors cannot run this package's code: {detail.splitlines()[-1] if detail else 'no reason given'}; "
        "expected the same environment as on the driver; install it there, and set PYSPARK_PYTHON to its Python",
        detail=detail,
    )


def _answer(question: Question, _: Iterable[int]) -> Iterator[Finding]:
    yield look_around(question)


@contextlib.contextmanager
def _marker(run_url: str) -> Iterator[tuple[str, bytes]]:
    """A file that every executor must see, or checkpoints would end up on different disks."""
    name = uuid.uuid4().hex
    url = storage.join(run_url, f".marker-{name}")
    storage.write_bytes(url, name.encode())
    try:
        yield url, name.encode()
    finally:
        with contextlib.suppress(StorageError):
            storage.remove(url)


def _dataset_files(task: TrainingTask) -> list[tuple[str, bytes]]:
    """The manifest of the version, and its first train file."""
    from pipeline.dataset import Dataset, version_url

    dataset = Dataset.open(task.dataset_url, task.content_id)
    manifest = storage.join(version_url(dataset.url, dataset.content_id), "manifest.json")
    parts = dataset.manifest.splits.get("train", ())
    first = [(storage.join(dataset.url, part.path), b"PAR1") for part in parts[:1]]
    return [(manifest, storage.read_bytes(manifest)[:64]), *first]
