"""Where and with what a benchmark ran, without which its numbers mean nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from servers import python_of


def describe(tree: Path, before: Path | None, peers: dict[str, str]) -> dict[str, str]:
    """``tree`` and ``before`` are the checkouts that were measured, ``peers`` the further servers' versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "commit": _commit(tree),
        **({"before": _commit(before)} if before else {}),
        "python": _output(python_of(tree), "-c", "import sys; print(sys.version.split()[0])"),
        "tornado": _output(python_of(tree), "-c", "import tornado; print(tornado.version)"),
        "nginx": _output("nginx", "-v").rpartition("/")[2],
        "nchan": _output("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"),
        **peers,
    }


def sentence(machine: dict[str, str]) -> str:
    return (
        f"{machine['date']} · {machine['processor']}, {machine['memory']} · {machine['system']}, "
        f"Linux {machine['kernel']} · Python {machine['python']}, Tornado {machine['tornado']} · "
        f"nginx {machine['nginx']}, Nchan {machine['nchan']} · commit {machine['commit']}"
        + (f", before: {machine['before']}" if "before" in machine else "")
    )


def _field(path: str, name: str) -> str:
    """The first value in a file of ``name : value`` lines."""
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return "unknown"
    return (done.stdout + done.stderr).strip().splitlines()[0] if done.returncode == 0 else "unknown"


def _commit(checkout: Path) -> str:
    return _output("git", "-C", str(checkout), "describe", "--always", "--dirty")
