"""DRIVER. What is made of the findings of a preflight: all that is wrong, what is tight, and a table of the rest."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pipeline.launch.probe import Finding

_UNITS = {"": 1, "m": 1, "g": 1 << 10, "t": 1 << 20, "k": 1 / (1 << 10)}  # in MiB; a bare number is MiB
_LEAST_OVERHEAD_MIB = 384
_OVERHEAD_FACTOR = {"yarn": 0.1, "k8s:": 0.4}  # of spark.executor.memory; Kubernetes: of what is not a JVM


def judge(findings: Sequence[Finding], expected: Mapping[str, str], device: str = "auto") -> list[str]:
    """All offences, each with the hosts that it was found on.

    Args:
        findings: one for each rank to be, in order.
        expected: versions as on the driver.
        device: `training.device`; on `cpu` it does not matter who sees which GPU.
    """
    hosts: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        for name, version in expected.items():
            if (found := finding.versions.get(name, "missing")) != version:
                hosts[f"{name} is {found}; expected {version} as on the driver; install the same there"].append(
                    finding.host
                )
        for trouble in finding.troubles:
            hosts[trouble].append(finding.host)
    if device != "cpu":
        for gpu, sharing in _shared_gpus(findings).items():
            hosts[
                f"GPU {gpu} is given to {len(sharing)} ranks; expected one each; set spark.task.resource.gpu.amount=1, "
                "or training.device: cpu"
            ] += sharing
    return [f"executor on {', '.join(dict.fromkeys(where))}: {offence}" for offence, where in hosts.items()]


def tight_memory(
    findings: Sequence[Finding], rank_mib: int, rank_cores: int, master: str, settings: Mapping[str, str]
) -> list[str]:
    """Warnings of hosts, and of executors with a limit, whose memory the ranks will not go into, as far as is known.

    Args:
        findings: one for each rank to be, in order.
        rank_mib: what a rank is estimated to need.
        rank_cores: how many a rank has, which says how many ranks go into an executor.
        master: YARN and Kubernetes end an executor that takes more than its memory and overhead.
        settings: of the session.
    """
    warnings = []
    for host, ranks in Counter(finding.host for finding in findings).items():
        free = min(finding.free_mib for finding in findings if finding.host == host)
        if ranks * rank_mib > free:
            warnings.append(
                f"host {host} has {free:,} MiB free, but its {ranks} ranks need about {ranks * rank_mib:,} MiB: "
                "lower cluster.num_proc, or give it fewer slots"
            )
    overhead = _overhead_mib(master, settings)
    ranks = max(1, min(len(findings), int(settings.get("spark.executor.cores", "1")) // rank_cores))
    if overhead is not None and ranks * rank_mib > overhead:
        warnings.append(
            f"spark.executor.memoryOverhead is {overhead:,} MiB, but the {ranks} ranks of an executor need about "
            f"{ranks * rank_mib:,} MiB beside its JVM: raise it"
        )
    return warnings


def table(findings: Sequence[Finding], expected: Mapping[str, str]) -> list[str]:
    """A line per rank to be, under a header and aligned, then the driver's versions.

    Args:
        findings: one for each rank to be, in order.
        expected: versions as on the driver.
    """
    rows = [("slot", "host", "free MiB", "GPU", "versions, troubles")]
    taken = _taken_gpus(findings)
    for number, finding in enumerate(findings):
        rest = "; ".join([_differing(finding, expected) or "as on the driver", *finding.troubles])
        rows.append((str(number), finding.host, f"{finding.free_mib:,}", _named(taken[number]), rest))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
    return [*lines, "driver: " + ", ".join(f"{name} {version}" for name, version in expected.items())]


def _differing(finding: Finding, expected: Mapping[str, str]) -> str:
    found = {name: finding.versions.get(name, "missing") for name in expected}
    return ", ".join(f"{name} {found[name]}" for name in expected if found[name] != expected[name])


def _named(gpu: tuple[str, str] | None) -> str:
    if gpu is None:
        return "none"
    name, uuid = gpu
    return name if name == uuid else f"{name} ({uuid or 'uuid unknown'})"


def _taken_gpus(findings: Sequence[Finding]) -> list[tuple[str, str] | None]:
    """The GPU that each rank will take, as `take_device` chooses: by its number on its host, of those that it sees."""
    seen: Counter[str] = Counter()
    taken = []
    for finding in findings:
        gpus = finding.gpus or tuple((name, "") for name in finding.given_gpus)
        taken.append(gpus[seen[finding.host] % len(gpus)] if gpus else None)
        seen[finding.host] += 1
    return taken


def _shared_gpus(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Hosts of the ranks that would take one and the same GPU: by its uuid, or by its name on a host without one."""
    ranks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for finding, gpu in zip(findings, _taken_gpus(findings), strict=True):
        if gpu is not None:
            name, uuid = gpu
            ranks[(uuid, "") if uuid else (name, finding.host)].append(finding.host)
    return {name: hosts for (name, _), hosts in ranks.items() if len(hosts) > 1}


def _overhead_mib(master: str, settings: Mapping[str, str]) -> int | None:
    """Memory of an executor beside its JVM; None where nobody holds it to that."""
    usual = _OVERHEAD_FACTOR.get(master[:4])
    if usual is None:
        return None
    if (said := settings.get("spark.executor.memoryOverhead")) is not None:
        return _mib(said)
    factor = float(settings.get("spark.executor.memoryOverheadFactor", usual))
    return max(_LEAST_OVERHEAD_MIB, int(_mib(settings.get("spark.executor.memory", "1g")) * factor))


def _mib(size: str) -> int:
    """Spark's way to write sizes: 512m, 2g, or a bare number of MiB."""
    parts = re.fullmatch(r"\s*(\d+)\s*([kmgt]?)b?\s*", size.lower())
    return math.floor(int(parts[1]) * _UNITS[parts[2]]) if parts else 0
