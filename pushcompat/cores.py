"""The number of cores that this process may use, by its affinity and the CPU quota of its control group (a
container's).
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def usable(groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """At least 1. A quota of one and a half cores makes 2."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas(groups, own))]))


def _quotas(groups: Path, own: Path) -> list[float]:
    """The quotas of the control group and its ancestors, in cores (cgroup v2)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    quotas = []
    for group in (groups / path, *(groups / path).parents):
        if group.is_relative_to(groups):
            quotas += _quota(group / "cpu.max")
    return quotas


def _quota(file: Path) -> list[float]:
    try:
        most, period = file.read_text().split()
        return [int(most) / int(period)]
    except (OSError, ValueError, ZeroDivisionError):
        return []  # "max", the root, or another system
