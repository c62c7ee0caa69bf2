"""One content id, whatever the cluster: other cores, executors of their own, one of them killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = """
import contextlib, json, os, signal, sys
import psutil
from pipeline.config import parse_config
from pipeline.config.training import ClusterConfig
from pipeline.launch.session import spark_session
from pipeline.preparation.prepare import prepare_dataset

folder, master, victim_step, table, partitions = sys.argv[1:]
url = f"{folder}/out-{os.getpid()}"
inputs = {} if int(partitions) else {"t": {"path": f"{folder}/{table}", "format": "parquet"}}
config = parse_config({
    "source": {"inputs": inputs, "id": "id"},
    "features": {"x": {"type": "numeric"}, "y": {"type": "numeric", "log1p": True, "scale": "robust"},
                 "c": {"type": "categorical", "min_count": 2}, "k": {"type": "target", "column": "c"}},
    "label": {"column": "label"}, "dataset": {"url": url}, "training": {"run_url": url + "-run"}})

killed = []

def kill_an_executor(step, done, total):
    if victim_step not in step or killed:
        return
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # a process that is about to end
            if any("CoarseGrainedExecutorBackend" in part for part in process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                return

with spark_session(ClusterConfig(master=master), folder + "/workspace") as spark:
    frame = spark.read.parquet(f"{folder}/{table}").repartition(int(partitions)) if int(partitions) else None
    dataset = prepare_dataset(spark, config, frame, progress=kill_an_executor)
print(json.dumps({"id": dataset.content_id, "published": dataset.manifest.accounting.published, "killed": len(killed)}))
"""


def prepare_on(
    folder: Path, master: str, victim_step: str = "nothing", table: str = "one", partitions: int = 0
) -> dict[str, object]:
    """What a process of its own prepares; from a frame of so many partitions, if any."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", SCRIPT, str(folder), master, victim_step, table, str(partitions)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return dict(json.loads(ended.stdout.strip().splitlines()[-1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clusters")
    random = np.random.default_rng(1)
    rows = 20_000
    table = {
        "id": np.arange(rows),
        "x": random.normal(1e6, 3, rows),
        "y": random.gamma(1, 100, rows),
        "c": random.choice([f"c{number}" for number in range(300)], rows),
        "label": random.integers(0, 2, rows),
    }
    frame = pd.DataFrame(table)
    (folder / "one").mkdir()
    frame.to_parquet(folder / "one" / "part.parquet")
    (folder / "many").mkdir()
    for number, part in enumerate(np.array_split(random.permutation(rows), 7)):
        frame.iloc[part].to_parquet(folder / "many" / f"part-{number}.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_content_id_is_the_same_on_every_cluster_and_after_the_loss_of_an_executor(folder: Path) -> None:
    one = prepare_on(folder, "local[1]")
    assert prepare_on(folder, "local[2]", table="many") == one
    cluster = "local-cluster[2,1,1024]"
    assert prepare_on(folder, cluster) == one
    for step in ("cleaning", "fitting", "encoding"):
        after_loss = prepare_on(folder, cluster, victim_step=step)
        assert after_loss == {**one, "killed": 1}, step


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_content_id_does_not_depend_on_the_partitions_of_a_frame(folder: Path) -> None:
    one = prepare_on(folder, "local[2]", partitions=1)
    assert prepare_on(folder, "local[2]", partitions=9) == one
    assert prepare_on(folder, "local-cluster[2,1,1024]", table="many", partitions=5) == one
