"""The stages as spark-submit jobs: the master given there wins, and the exit codes are the commands'."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.java import find_java
from tests.jobs.conftest import REPOSITORY, read_result

JOBS = sorted((REPOSITORY / "jobs").glob("*.py"))
SUBMIT = Path(sys.executable).parent / "spark-submit"


def submit(job: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "JAVA_HOME": str(find_java()),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    options = ["--master", "local[1]", "--driver-java-options", "-XX:TieredStopAtLevel=1"]  # for hardly any rows
    options += ["--conf", "spark.ui.enabled=false", "--conf", "spark.driver.host=127.0.0.1"]
    return subprocess.run(
        [str(SUBMIT), *options, str(REPOSITORY / "jobs" / job), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
    )


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_a_job_is_a_few_lines_that_call_the_package(job: Path) -> None:
    text = job.read_text()
    assert len(text.splitlines()) <= 40
    assert ast.get_docstring(ast.parse(text))


def test_the_flow_and_scoring_run_on_the_master_given_to_spark_submit(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    _, config, *settings = arguments("run", tmp_path, "cluster.master=local[64]", "cluster.num_proc=auto")
    ended = submit("run.py", config, *settings)
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = read_result(ended.stdout)
    assert result["model"]["version"] == "1"
    assert "on local[1]" in ended.stdout, "spark-submit puts the log there, which says on which master it runs"
    (held_out,) = tmp_path.glob("flights/versions/*/raw/test")
    ended = submit("score.py", config, str(held_out), str(tmp_path / "scored"), *settings)
    assert ended.returncode == 0, ended.stderr[-3000:]
    scored = pq.read_table(tmp_path / "scored")
    assert len(scored) == pq.read_table(held_out).num_rows == read_result(ended.stdout)["rows"]["out"]
    assert {"probability", "model_version"} <= set(scored.column_names)


def test_a_failing_job_gives_the_commands_exit_code() -> None:
    ended = submit("train.py", "/nowhere/pipeline.yaml")
    assert ended.returncode == 66
    assert read_result(ended.stdout)["code"] == 66
