"""The Spark session: loopback, quiet, with its files in the workspace, and gone when it is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest

from pipeline.config.training import ClusterConfig
from pipeline.errors import SecurityError, ServiceError
from pipeline.java import class_archive, find_java
from pipeline.launch.session import spark_session
from pipeline.launch.tasks import threads_that_sleep
from pipeline.launch.temporary import temporary_folder

_PROGRAM = """
import sys, time
from pipeline.config.training import ClusterConfig
from pipeline.launch.session import spark_session
with spark_session(ClusterConfig(master="local[2]"), sys.argv[1]) as spark:
    print("ready", flush=True)
    spark.sparkContext.parallelize([1, 2], 2).map(lambda second: time.sleep(120)).collect()
"""


def test_an_existing_session_wins_and_is_not_stopped(spark, tmp_path: Path) -> None:
    with spark_session(ClusterConfig(master="local[1]"), str(tmp_path)) as session:
        assert session.sparkContext.master == "local[2]"
    assert spark.range(3).count() == 3
    assert not list(tmp_path.iterdir())


def test_local_sessions_listen_on_loopback_only_without_ui_in_utc(spark) -> None:
    assert spark.conf.get("spark.driver.host") == "127.0.0.1"
    assert spark.sparkContext.uiWebUrl is None
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    jvms = [child for child in psutil.Process().children() if "java" in child.name()]
    ports = [c.laddr.ip for jvm in jvms for c in jvm.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert ports
    assert {ip.removeprefix("::ffff:") for ip in ports} == {"127.0.0.1"}


def test_workers_run_this_python_and_import_what_the_driver_imports(spark) -> None:
    [(executable, paths)] = spark.sparkContext.parallelize([0], 1).map(lambda _: (sys.executable, sys.path)).collect()
    assert executable == sys.executable
    assert {path for path in sys.path if "tests" in path} <= set(paths)


def _waits(spark: Any) -> str | None:
    return spark.sparkContext.parallelize([0], 1).map(lambda _: os.environ.get("OMP_WAIT_POLICY")).first()


def test_threads_of_workers_sleep_while_they_wait_in_our_own_session_and_for_ranks_in_any(
    spark, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _waits(spark) == "PASSIVE"
    settings = spark.sparkContext.environment
    monkeypatch.delitem(settings, "OMP_WAIT_POLICY")
    with threads_that_sleep(spark):
        assert _waits(spark) == "PASSIVE"
    assert _waits(spark) is None
    monkeypatch.setitem(settings, "OMP_WAIT_POLICY", "ACTIVE")
    with threads_that_sleep(spark):
        assert _waits(spark) == "ACTIVE"
    assert _waits(spark) == "ACTIVE"


def test_workers_take_the_installed_pyspark_and_share_what_tasks_import(spark) -> None:
    def look(_: int) -> tuple[str | None, list[str], bool, int]:
        import gc

        import pyspark

        home = os.environ["SPARK_HOME"]
        archives = [path for path in sys.path_importer_cache if path.startswith(home) and os.path.isfile(path)]
        imported = "pipeline.preparation.write" in sys.modules
        return pyspark.__file__, archives, imported, gc.get_freeze_count()

    [(path, archives, imported, frozen)] = spark.sparkContext.parallelize([0], 1).map(look).collect()
    assert path == pyspark.__file__
    assert not archives, "each task would read their lists of contents again"
    assert imported
    assert frozen


def test_the_jvm_maps_the_classes_that_set_up_read_ahead(spark) -> None:
    [jvm] = [child for child in psutil.Process().children() if "java" in child.name()]
    archive = class_archive(find_java())
    assert archive.exists(), "made by set-up; or by `pipeline doctor --class-archive`"
    assert str(archive) in {mapped.path for mapped in jvm.memory_maps()}


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_archive_of_classes_is_passed_over(tmp_path: Path, content: bytes) -> None:
    damaged = tmp_path / "classes.jsa"
    damaged.write_bytes(content)
    program = _PROGRAM.replace(
        "spark.sparkContext.parallelize([1, 2], 2).map(lambda second: time.sleep(120)).collect()", ""
    )
    code = (
        "import pathlib\nfrom pipeline.launch import session\n"
        f"session.class_archive = lambda java: pathlib.Path({str(damaged)!r})\n{program}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "workspace")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "ready\n"


def test_temporary_files_lie_in_the_workspace(spark) -> None:
    folders = spark.sparkContext.parallelize([0], 1).map(lambda _: os.environ["TMPDIR"]).collect()
    java = spark.sparkContext._jvm.java.lang.System.getProperty("java.io.tmpdir")
    assert folders == [java]
    assert "/.tmp/" in java


def test_a_secret_in_spark_settings_is_refused_before_java_starts(tmp_path: Path) -> None:
    cluster = ClusterConfig(spark={"spark.authenticate.secret": "hunter2"})
    with (
        pytest.raises(SecurityError, match=r"cluster\.spark\.spark\.authenticate\.secret holds a secret") as caught,
        spark_session(cluster, str(tmp_path)),
    ):
        pass
    assert "hunter2" not in str(caught.value)


def test_a_setting_from_the_environment_reaches_spark_but_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCOUNT_KEY", "hunter2")
    setting = 'spark={"spark.hadoop.account.key": "${env:ACCOUNT_KEY}"}'
    code = _PROGRAM.replace('master="local[2]"', f'master="local[2]", {setting}').replace(
        'print("ready"', 'assert spark.conf.get("spark.hadoop.account.key") == "hunter2"; print("ready"'
    )
    assert code.count("hunter2") == 1
    program = _start(tmp_path, code)
    lines = [" ".join(child.cmdline()) for child in _family(program)]
    program.kill()
    program.communicate()
    assert any("java" in line for line in lines)
    assert not any("hunter2" in line for line in lines)


@pytest.mark.parametrize(
    ("brief", "spark", "first", "last"),
    [
        (True, {}, "-XX:TieredStopAtLevel=1", "-XX:TieredStopAtLevel=1"),
        (False, {}, "-XX:Tier4InvocationThreshold=50000", "-XX:Tier4BackEdgeThreshold=400000"),
        (
            True,
            {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4"},
            "-XX:TieredStopAtLevel=1",
            "-XX:TieredStopAtLevel=4",
        ),
    ],
    ids=["none in a brief session", "what runs often in any other", "the user's own setting wins"],
)
def test_java_code_is_optimized_if_that_pays(
    tmp_path: Path, brief: bool, spark: dict[str, str], first: str, last: str
) -> None:
    code = _PROGRAM.replace('master="local[2]"', f'master="local[2]", spark={spark!r}')
    program = _start(tmp_path, code.replace("sys.argv[1])", f"sys.argv[1], brief={brief})"))
    [jvm] = [child for child in psutil.Process(program.pid).children() if "java" in child.name()]
    options = [option for option in jvm.cmdline() if option.startswith("-XX:Tier")]
    program.kill()
    program.communicate()
    assert (options[0], options[-1]) == (first, last)


def test_a_brief_session_starts_python_workers_before_a_task_needs_one(tmp_path: Path) -> None:
    code = """
import sys, time
import psutil
from pipeline.config.training import ClusterConfig
from pipeline.launch.session import spark_session

def children():
    here = {one.pid for one in psutil.Process().children(recursive=True)}
    return [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"]) if one.pid in here]

with spark_session(ClusterConfig(master="local[2]"), sys.argv[1], brief=True):
    while not any("pipeline.launch.python_daemon" in command for command in children()):
        time.sleep(0.1)
    print("started")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "started\n"
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] in ([], ["spark.log"])


def test_spark_connect_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARK_REMOTE", "sc://somewhere")
    with pytest.raises(ServiceError, match="Spark Connect"), spark_session(ClusterConfig(), str(tmp_path)):
        pass


def test_a_living_owners_folder_stays_and_a_dead_ones_is_swept(tmp_path: Path) -> None:
    dead = tmp_path / ".tmp" / "dead"
    dead.mkdir(parents=True)
    (dead / "owner.lock").touch()
    with temporary_folder(str(tmp_path)) as first, temporary_folder(str(tmp_path)) as second:
        assert first.exists()
        assert second.exists()
        assert not dead.exists()
    assert not list(tmp_path.iterdir())


def _start(workspace: Path, code: str = _PROGRAM) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 30
    while len(_family(program)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)  # the JVM, the daemon of its Python workers, and two of them
    return program


def _family(program: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes below it; of the script that starts Java, the JVM sometimes inherits a zombie."""
    children = psutil.Process(program.pid).children(recursive=True)
    return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def _wait_until_gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=20)[1]


def test_ctrl_c_in_a_spark_job_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    program = _start(tmp_path)
    family = _family(program)
    started = time.monotonic()
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    assert time.monotonic() - started < 20
    assert errors.count("Traceback") == 1
    assert errors.endswith("KeyboardInterrupt\n")
    assert not _wait_until_gone(family)
    assert [path.name for path in tmp_path.iterdir()] == ["spark.log"]


def test_after_sigkill_the_jvm_goes_by_itself_and_the_next_session_sweeps(tmp_path: Path) -> None:
    program = _start(tmp_path)
    family = _family(program)
    assert len(family) >= 4
    program.kill()
    program.communicate()
    assert not _wait_until_gone(family)
    with temporary_folder(str(tmp_path)) as folder:
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_session_ends_without_a_word_when_its_accumulators_have_counted(tmp_path: Path) -> None:
    job = "spark.sparkContext.parallelize([1, 2], 2).map(lambda second: time.sleep(120)).collect()"
    assert job in _PROGRAM
    code = _PROGRAM.replace(
        job, "total = spark.sparkContext.accumulator(0)\n    " + job.replace("time.sleep", "total.add")
    )
    code += "import threading\nnames = [one.name for one in threading.enumerate()]\n"
    code += "print(total.value, [name for name in names if 'serve_forever' in name or 'stop' in name])"
    finished = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert finished.stdout.splitlines() == ["ready", "240 []"]
    assert finished.stderr == ""


def test_a_session_that_cannot_start_tells_what_spark_said(tmp_path: Path) -> None:
    program = _PROGRAM.replace('master="local[2]"', 'master="local[2]", spark={"spark.driver.memory": "1k"}')
    code = (
        "from pipeline.errors import ServiceError\n"
        f"try:\n    exec({program!r})\nexcept ServiceError as e:\n    print(e.lines())"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "error[69]: Spark with master local[2] did not start" in finished.stdout
    assert "heap" in finished.stdout


def test_a_jvm_that_is_killed_is_said_so_without_tracebacks_of_py4js_own(tmp_path: Path) -> None:
    program = _start(tmp_path)
    [jvm] = [child for child in psutil.Process(program.pid).children() if "java" in child.name()]
    jvm.kill()
    _, errors = program.communicate(timeout=60)
    assert "while sending command" not in errors
    assert "ServiceError: the Java process of Spark with master local[2] was killed by SIGKILL" in errors
