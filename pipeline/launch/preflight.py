"""DRIVER. Looks at every executor before anything long begins, and says all that is wrong at once."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from pipeline import storage
from pipeline.errors import ServiceError, StorageError
from pipeline.launch.channel import ChannelServer
from pipeline.launch.cluster import driver_addresses
from pipeline.launch.job import run_job
from pipeline.launch.probe import Finding, Question, look_around, unreadable, versions
from pipeline.launch.resources import Resources
from pipeline.launch.tasks import run_together
from pipeline.launch.watch import python_part
from pipeline.task import TrainingTask


def preflight(spark: SparkSession, task: TrainingTask, resources: Resources, seconds: float) -> list[Finding]:
    """What each of as many barrier tasks as there will be ranks finds where it runs.

    Raises:
        ServiceError: everything that would make ranks fail: differing versions, no way to the driver, storage that
            is not shared, a dataset that cannot be read, one GPU for two ranks.
    """
    with (
        ChannelServer(*driver_addresses(spark)) as channel,
        _marker(task.training.run_url) as marker,
    ):
        driver = (channel.address.host, channel.address.port)
        question = Question(driver, (marker, *_dataset_files(task)))
        try:
            findings = run_job(spark, "preflight", partial(_ask, spark, question, resources), seconds)
        except Py4JError as error:
            raise _no_answer(error) from error
    if offences := judge(findings, versions()):
        raise ServiceError(*offences)
    return findings


def preflight_here(task: TrainingTask) -> None:
    """The part that is left where driver and executors are one process: the run folder and the dataset.

    Raises:
        ServiceError: the run folder cannot be written, or the dataset cannot be read.
    """
    with _marker(task.training.run_url) as marker:
        troubles = [unreadable(url, start) for url, start in (marker, *_dataset_files(task))]
    if offences := [trouble for trouble in troubles if trouble]:
        raise ServiceError(*offences)


def judge(findings: Sequence[Finding], expected: Mapping[str, str]) -> list[str]:
    """All offences, each with the hosts that it was found on."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        for name, version in expected.items():
            if (found := finding.versions.get(name, "missing")) != version:
                hosts[f"{name} is {found}; expected {version} as on the driver; install the same there"].append(
                    finding.host
                )
        for trouble in finding.troubles:
            hosts[trouble].append(finding.host)
    taken = [(finding.host, gpu) for finding in findings for gpu in finding.gpus[:1]]
    for (host, gpu), ranks in Counter(taken).items():
        if ranks > 1:
            advice = "set spark.task.resource.gpu.amount=1"
            hosts[f"GPU {gpu} is given to {ranks} ranks; expected one each; {advice}"].append(host)
    return [f"executor on {', '.join(dict.fromkeys(where))}: {offence}" for offence, where in hosts.items()]


def table(findings: Sequence[Finding]) -> list[str]:
    """One line per rank to be: host, GPU, versions, or what is wrong."""
    lines = []
    for number, finding in enumerate(findings):
        known = ", ".join(f"{name} {version}" for name, version in finding.versions.items())
        gpus = f", GPU {', '.join(finding.gpus)}" if finding.gpus else ""
        lines.append(f"{number}: {finding.host}{gpus}: {'; '.join(finding.troubles) or known}")
    return lines


def _ask(spark: SparkSession, question: Question, resources: Resources) -> list[Finding]:
    findings: list[Finding] = run_together(spark, partial(_answer, question), resources.num_proc, resources.cores)
    return findings


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
