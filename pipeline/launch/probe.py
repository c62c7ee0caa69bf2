"""EXECUTOR. What an executor finds when it looks around before training: light, without torch or Horovod."""

from __future__ import annotations

import hashlib
import json
import platform
import socket
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pyspark import BarrierTaskContext

from pipeline import storage
from pipeline.errors import StorageError

PACKAGES = ("torch", "horovod", "numpy", "pyarrow", "petastorm", "pandas", "pydantic", "safetensors", "pyspark")
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Question:
    """What an executor is asked to look at.

    Attributes:
        driver: host and port that must be reachable.
        files: urls to read, each with the bytes that it must begin with.
    """

    driver: tuple[str, int]
    files: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Finding:
    """What one executor found.

    Attributes:
        versions: of Python, the packages and this package's code; ``missing`` where there is none.
        troubles: sentences about what it could not reach or read.
        gpus: addresses of the GPUs that Spark gave to this task.
    """

    host: str
    versions: dict[str, str]
    troubles: tuple[str, ...]
    gpus: tuple[str, ...]


def look_around(question: Question) -> Finding:
    """The finding of the executor that runs this barrier task."""
    context = BarrierTaskContext.get()
    resources = context.resources()
    troubles = [_unreachable(question.driver), *(unreadable(url, start) for url, start in question.files)]
    return Finding(
        host=context.getTaskInfos()[context.partitionId()].address.rsplit(":", 1)[0],
        versions=versions(),
        troubles=tuple(trouble for trouble in troubles if trouble),
        gpus=tuple(resources["gpu"].addresses) if "gpu" in resources else (),
    )


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
