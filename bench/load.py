"""The load generator (``load/``, in C): build it, run it against a server, read its report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from servers import LOAD_CORE, BenchError, Server, on_core

SOURCES = Path(__file__).parent / "load"
PROGRAM = Path(__file__).parent / "build" / "load"
PHASES = ("prime", "open", "hold", "run")  # of a report
RUN_S = 180  # far more than its own limits; it ends by itself

Report = dict[str, Any]  # what load/tally.c prints, and the share of a core that everybody else used meanwhile


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator is to do; each field is its option of that name (see load/main.c)."""

    transport: str = "websocket"
    subscribers: int = 0
    channels: int = 1
    bystanders: int = 0
    others: int = 0
    publishers: int = 1
    rate: int = 0
    seconds: float = 0.0
    hold: float = 0.0
    channel: str = "chat"
    held: int = 0
    random: int = 0
    fresh_keys: int = 0

    def arguments(self) -> list[str]:
        return [word for f in fields(self) for word in (f"--{f.name.replace('_', '-')}", str(getattr(self, f.name)))]

    def scaled_down(self) -> Load:
        """A fifth of everything, for development."""
        return replace(
            self,
            subscribers=-(-self.subscribers // 5),
            channels=-(-self.channels // 5),
            bystanders=-(-self.bystanders // 5),
            others=-(-self.others // 5),
            seconds=min(self.seconds, 2.0),
            hold=min(self.hold, 3.0),
        )

    def warm_up(self) -> Load:
        """What every server gets first: imports done, caches filled, as in a server that has run for a while."""
        few = min(self.subscribers + self.bystanders, 200)
        return Load(transport=self.transport, subscribers=few, publishers=4, rate=100, seconds=0.3, channel="warm")


def build() -> None:
    sources = sorted(SOURCES.glob("*.c"))
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > newest:
        return
    if not shutil.which("gcc"):
        raise BenchError("gcc is missing, which builds the load generator: apt-get install gcc libc6-dev")
    PROGRAM.parent.mkdir(exist_ok=True)
    done = subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", PROGRAM, *sources], check=False)
    if done.returncode:
        raise BenchError("the load generator does not compile; the compiler says why above")


def run(load: Load, server: Server) -> Report:
    """Run the load on its own core. Raises BenchError where it could not do its work at all."""
    command = [str(PROGRAM), "--dialect", server.dialect, "--port", str(server.port), *load.arguments()]
    command += ["--key", server.key] if server.key else []
    command += ["--publish-port", str(server.publish_port)] if server.publish_port else []
    command += ["--parameters", str(server.parameters)] if server.parameters else []
    command += [word for pid in server.pids for word in ("--server-pid", str(pid))]
    before, start = busy_cpu_s(), time.monotonic()
    done = subprocess.run(on_core(LOAD_CORE, command), stdout=subprocess.PIPE, timeout=RUN_S, check=False)
    if done.returncode:
        raise BenchError(f"the load generator failed (above) with {load} on {server.dialect}")
    report: Report = json.loads(done.stdout)
    ours = sum(report[phase][process] for phase in PHASES for process in ("server_cpu_s", "load_cpu_s"))
    report["others_share"] = round((busy_cpu_s() - before - ours) / (time.monotonic() - start), 3)
    return report


def busy_cpu_s() -> float:
    """CPU seconds that all processes of this machine have used since it started; stolen time counts as used."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
