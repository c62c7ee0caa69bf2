"""Ranks that are bigger than the other tasks of the same session, on a stand-alone cluster of processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.chaos.cluster import standalone_cluster
from tests.distributed.ranks import REPOSITORY
from tests.stacks import needs_horovod

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

# A process of its own, since a session of these tests may be open in this one.
SCRIPT = """
import json, os, sys
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.errors import PipelineError
from pipeline.launch import launch_training
from pipeline.launch.cluster import cluster_facts
from pipeline.launch.session import spark_session
from pipeline.task import TrainingTask
from pipeline.testing import tiny_dataset

folder, settings = sys.argv[1], json.loads(sys.argv[2])
dataset = tiny_dataset(folder + "/dataset", 100)

def where(task, collective, reporter, stop):
    import psutil
    from pyspark import BarrierTaskContext
    executor = next(process.pid for process in psutil.Process().parents() if "java" in process.name())
    context = BarrierTaskContext.get()
    mine = {"executor": executor, "cores": context.cpus(), "threads": task.threads,
            "gpus": context.resources()["gpu"].addresses, "visible": os.environ["CUDA_VISIBLE_DEVICES"]}
    return collective.gather_objects(mine)

def train(name, **options):
    cluster = ClusterConfig(**settings, **options)
    training = TrainingConfig(run_url=f"{folder}/{name}")
    task = TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="linear"), training)
    try:
        return launch_training(spark, task, cluster, body=where)
    except PipelineError as error:
        return {"error": str(error), "code": error.code}

with spark_session(ClusterConfig(**settings), folder + "/workspace") as spark:
    found = {
        "executor": train("executor", num_proc="auto", cores_per_rank="executor"),  # before all executors are there
        "number": train("number", num_proc=2, cores_per_rank=2),
        "small tasks": cluster_facts(spark, ClusterConfig()).slots,
        "too many": train("many", num_proc=3, cores_per_rank=2, deadlines={"launch": 3}),
        "too big": train("big", cores_per_rank=3),
        "small ranks": train("small", num_proc=4, launcher="horovod"),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What trainings on two executors of two cores and a GPU say, while a task of the session takes one core."""
    folder = tmp_path_factory.mktemp("cores")
    with standalone_cluster(folder, workers=2, cores=2, gpus=True) as cluster:
        settings = cluster.config().model_dump(include={"master", "spark"})
        settings["spark"] |= {
            "spark.executor.resource.gpu.amount": "1",
            "spark.task.resource.gpu.amount": "0.5",
        }
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(folder), json.dumps(settings)],
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return dict(json.loads(ended.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize("asked", ["number", "executor"])
def test_each_rank_has_an_executor_for_itself_with_all_its_cores(found: dict[str, Any], asked: str) -> None:
    one, other = found[asked]
    assert one["executor"] != other["executor"]
    assert [(rank["cores"], rank["threads"]) for rank in (one, other)] == [(2, 2), (2, 2)]


def test_ranks_keep_the_gpu_that_every_task_of_the_session_has(found: dict[str, Any]) -> None:
    ranks = found["number"]
    assert sorted(rank["gpus"] for rank in ranks) == [["worker-0"], ["worker-1"]]
    assert all(rank["visible"] == rank["gpus"][0] for rank in ranks)


def test_other_tasks_of_the_session_stay_small(found: dict[str, Any]) -> None:
    assert found["small tasks"] == 4


def test_more_ranks_than_executors_and_more_cores_than_an_executor_has_are_refused(found: dict[str, Any]) -> None:
    too_many, too_big = found["too many"], found["too big"]
    assert too_many["code"] == 69
    assert "number of free slots is 2 (tasks of cluster.cores_per_rank=2" in too_many["error"]
    assert too_big["code"] == 78
    assert "cluster.cores_per_rank asks for tasks of 3 cores" in too_big["error"]


@needs_horovod
def test_executors_are_looked_at_before_horovods_own_launcher_too(found: dict[str, Any]) -> None:
    two_per_gpu = found["small ranks"]
    assert two_per_gpu["code"] == 69
    assert re.findall(r"GPU (\S+) is given to 2 ranks", two_per_gpu["error"]) in (
        ["worker-0", "worker-1"],
        ["worker-1", "worker-0"],
    )
