"""A real stand-alone Spark cluster of processes on the loopback interface, for tests that break it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pyspark

from pipeline.config.training import ClusterConfig
from pipeline.java import find_java

_START_SECONDS = 60


@dataclass
class StandaloneCluster:
    """A master and its workers, each worker with so many cores, and with a pretended GPU if there are to be any."""

    folder: Path
    port: int
    master: subprocess.Popen[bytes]
    cores: int = 1
    gpus: bool = False
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"spark://127.0.0.1:{self.port}"

    def config(self, **options: Any) -> ClusterConfig:
        """Settings for a session on this cluster, all on loopback."""
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.executor.cores": str(self.cores),
            "spark.executor.memory": "512m",
            "spark.executor.extraJavaOptions": f"-Djava.io.tmpdir={self.folder} -XX:-UsePerfData",
            "spark.decommission.enabled": "true",
        }
        return ClusterConfig(master=self.url, spark=settings, **options)

    def add_worker(self) -> None:
        name = f"worker-{len(self.workers)}"
        options = ["--host", "127.0.0.1", "--webui-port", "0", "--cores", str(self.cores), "--memory", "1g"]
        arguments = [*options, "--work-dir", str(self.folder / name), self.url]
        kind = f"-Dspark.decommission.enabled=true {self._pretended_gpu(name) if self.gpus else ''}"
        variables = {"SPARK_WORKER_OPTS": kind}
        self.workers.append(_start("org.apache.spark.deploy.worker.Worker", arguments, self.folder, name, variables))

    def wait_for_worker(self) -> None:
        """Until the newest worker is known to the master."""
        log = self.folder / f"worker-{len(self.workers) - 1}.log"
        deadline = time.monotonic() + _START_SECONDS
        while "Successfully registered with master" not in log.read_text():
            assert time.monotonic() < deadline, "the worker did not start"
            time.sleep(0.2)

    def _pretended_gpu(self, name: str) -> str:
        """Java options of a worker with one GPU, whose address is the worker's name."""
        script = self.folder / f"gpu-of-{name}"
        script.write_text(f"""#!/bin/sh\necho '{{"name": "gpu", "addresses": ["{name}"]}}'\n""")
        script.chmod(0o700)
        prefix = "-Dspark.worker.resource.gpu"
        return f"{prefix}.amount=1 {prefix}.discoveryScript={script}"

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to the cluster."""
        found = []
        for daemon in (self.master, *self.workers):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(daemon.pid)
                found += [process, *process.children(recursive=True)]
        return found


@contextlib.contextmanager
def standalone_cluster(folder: Path, workers: int, **kind: Any) -> Iterator[StandaloneCluster]:
    """Start the cluster; at exit nothing of it is left."""
    port = _free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    cluster = StandaloneCluster(
        folder, port, _start("org.apache.spark.deploy.master.Master", options, folder, "master"), **kind
    )
    try:
        _wait_for(port)
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        processes = cluster.processes()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
                process.kill()
        for daemon in (cluster.master, *cluster.workers):
            daemon.wait()
        psutil.wait_procs(processes, timeout=10)


def _start(
    role: str, arguments: list[str], folder: Path, name: str, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    home = Path(pyspark.__file__).parent
    environment = {
        **os.environ,
        "JAVA_HOME": str(find_java()),
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": f"-Djava.io.tmpdir={folder} -XX:-UsePerfData",
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "TMPDIR": str(folder),
        **variables,
    }
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [home / "bin" / "spark-class", role, *arguments],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError("the master did not start")
