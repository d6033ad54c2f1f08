"""What this process uses, as metrics by the names that all exporters of Prometheus give them, and what build it is.

Not with prometheus-client's own collector: it lists the descriptors, which takes 25 ms for 16,000 connections, while
the event loop waits. Linux 6.2 and later tell their number at once.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path

from . import __version__
from .build import COMPILED
from .metrics import Labelled

_STARTED = time.time()
_MEMORY = Path("/proc/self/statm")  # in pages: the second number is the resident memory
_DESCRIPTORS = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
_BUILD = (__version__, "compiled" if COMPILED else "pure", platform.python_version())


def usage() -> dict[str, float | Labelled]:
    """By the names of ``metrics.FAMILIES``, without those that the operating system does not tell."""
    times = resource.getrusage(resource.RUSAGE_SELF)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found: dict[str, float | Labelled] = {
        "build_info": [(_BUILD, 1)],
        "process_cpu_seconds": times.ru_utime + times.ru_stime,
        "process_start_time_seconds": _STARTED,
    }
    if limit != resource.RLIM_INFINITY:
        found["process_max_fds"] = limit
    try:
        found["process_open_fds"] = _open_descriptors()
        found["process_resident_memory_bytes"] = int(_MEMORY.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        pass  # macOS has no /proc; a container may hide it
    return found


def _open_descriptors() -> int:
    """Raises OSError."""
    told = _DESCRIPTORS.stat().st_size if sys.platform == "linux" else 0
    return told or len(os.listdir(_DESCRIPTORS))
