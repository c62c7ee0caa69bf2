"""EXECUTOR. What an executor finds when it looks around before training: light, without torch or Horovod."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pyspark import BarrierTaskContext, TaskContext

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.machine import free_memory_bytes

PACKAGES = ("torch", "horovod", "numpy", "pyarrow", "petastorm", "pandas", "pydantic", "safetensors", "pyspark")
_CONNECT_SECONDS = 10.0
_SLOT_SECONDS = 2.0


@dataclass(frozen=True)
class Question:
    """What an executor is asked to look at.

    Attributes:
        driver: host and port that must be reachable.
        files: urls to read, each with the bytes that it must begin with.
        together: whether it is asked in a barrier task; others take their time, so that each has a slot of its own.
    """

    driver: tuple[str, int]
    files: tuple[tuple[str, bytes], ...]
    together: bool = True


@dataclass(frozen=True)
class Finding:
    """What one executor found.

    Attributes:
        versions: of Python, the packages and this package's code; ``missing`` where there is none.
        troubles: sentences about what it could not reach or read.
        given_gpus: addresses of the GPUs that Spark gave to this task.
        gpus: those that a rank sees here, as (number or name, uuid); the uuid is empty where nothing tells it.
        free_mib: memory that is free for use.
    """

    host: str
    versions: dict[str, str]
    troubles: tuple[str, ...]
    given_gpus: tuple[str, ...] = ()
    gpus: tuple[tuple[str, str], ...] = ()
    free_mib: int = 0


def look_around(question: Question) -> Finding:
    """The finding of the executor that runs this task."""
    context = TaskContext.get()
    assert context is not None, "asked in a task"
    resources = context.resources()
    given = tuple(resources["gpu"].addresses) if "gpu" in resources else ()
    troubles = [_unreachable(question.driver), *(unreadable(url, start) for url, start in question.files)]
    if not question.together:
        time.sleep(_SLOT_SECONDS)
    return Finding(
        host=_own_address() if question.together else socket.gethostname(),
        versions=versions(),
        troubles=tuple(trouble for trouble in troubles if trouble),
        given_gpus=given,
        gpus=visible_gpus(given),
        free_mib=free_memory_bytes() >> 20,
    )


def _own_address() -> str:
    context = BarrierTaskContext.get()
    return context.getTaskInfos()[context.partitionId()].address.rsplit(":", 1)[0]


def visible_gpus(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The GPUs that a rank sees here, each with its uuid: those given, else what the environment leaves of all.

    None if torch is built without CUDA. The driver's own tool is asked: torch would take memory on the GPU to answer.
    """
    if not _torch_has_cuda():
        return ()
    known = _gpus_of_host()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = list(given) or (list(known) if named is None else [name for name in named.split(",") if name.strip()])
    return tuple((name, name if name.startswith(("GPU-", "MIG-")) else known.get(name.strip(), "")) for name in seen)


def _torch_has_cuda() -> bool:
    spec = find_spec("torch")
    text = Path(spec.origin).with_name("version.py").read_text() if spec is not None and spec.origin else ""
    return re.search(r"^cuda\b.*=\s*['\"]", text, re.MULTILINE) is not None


def _gpus_of_host() -> dict[str, str]:
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_CONNECT_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split(",") for line in said.splitlines() if "," in line)
    return {number.strip(): uuid.strip() for number, uuid in pairs}


def versions() -> dict[str, str]:
    """Versions that must be equal on driver and executors."""
    found = {"python": platform.python_version(), "pipeline code": _code_digest()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    if found["horovod"] != "missing" and not _horovod_has_torch():
        found["horovod"] += " built without torch"
    return found


def _code_digest() -> str:
    """A short digest of this package's sources: an executor with an older copy trains something else."""
    folder = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(json.dumps([str(path.relative_to(folder)), path.read_text()]).encode())
    return digest.hexdigest()[:12]


def _horovod_has_torch() -> bool:
    spec = find_spec("horovod")
    places = (spec.submodule_search_locations or []) if spec else []
    return any(list(Path(place, "torch").glob("mpi_lib*.so")) for place in places)


def _unreachable(driver: tuple[str, int]) -> str | None:
    try:
        with socket.create_connection(driver, _CONNECT_SECONDS):
            return None
    except OSError as error:
        return f"cannot reach the driver at {driver[0]}:{driver[1]} ({error}); set spark.driver.host, check firewalls"


def unreadable(url: str, start: bytes) -> str | None:
    """What is wrong with a file that should begin with some bytes; None if nothing is."""
    try:
        with storage.open_read(url) as stream:
            found = stream.read(len(start))
    except (StorageError, OSError) as error:
        return f"cannot read {url} ({error}); use storage that all executors share"
    return None if found == start else f"finds another content in {url}; use storage that all executors share"
