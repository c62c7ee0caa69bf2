"""ANYWHERE. What this machine, or the container we are in, lets us use: cores, memory, disk.

Standard library only. Container limits count, because a process that plans for the host's memory is killed.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use at once: its affinity, cut to the container's quota (rounded up)."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """Memory that may be used: what the machine has, cut to the container's limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_number(cgroup / "memory.max"), _number(cgroup / "memory" / "memory.limit_in_bytes")]
    return min([physical, *(limit for limit in limits if limit)])


def free_memory_bytes(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that is free for use: what the operating system says, cut to what is left of the container's limit.

    Where the operating system does not say (it is not Linux), all that may be used.
    """
    lines = dict(line.split(":", 1) for line in _text(meminfo).splitlines() if ":" in line)
    available = lines.get("MemAvailable", "").split()
    free = int(available[0]) * 1024 if available else memory_bytes(cgroup)
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    return free if limit is None or used is None else min(free, max(0, limit - used))


def free_disk_bytes(folder: Path) -> int:
    """Free bytes where `folder` is, or will be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _cpu_quota(cgroup: Path) -> float | None:
    """Cores per period; the two versions of Linux control groups write it differently."""
    words = _text(cgroup / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    quota, period = _number(cgroup / "cpu" / "cpu.cfs_quota_us"), _number(cgroup / "cpu" / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _number(path: Path) -> int | None:
    """A positive number in a file; None for "max", -1 (both: no limit) or no such file."""
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
