"""Server processes on fixed ports, so that they can be killed and come back, and what is looked at in them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..harness import KEY, PATIENCE_S
from ..reach.processes import Group, free_port


class Usage(NamedTuple):
    """Of one process."""

    memory_bytes: int
    descriptors: int


class Node:
    """``python -m pushcompat``, with its workers."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._group: Group | None = None
        self.complaints: list[str] = []

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pushcompat", "--port", str(self.port), "--publish-key", KEY]
        command += ["--state-dir", str(self._folder / "state"), *self._options]
        self._group = await Group.start(command, self._folder)
        await self._group.listening(self.port)

    async def kill(self) -> None:
        """All of its processes, at once."""
        assert self._group is not None
        self._group.signal(signal.SIGKILL)
        await self.stop()

    async def stop(self) -> None:
        if self._group is not None:
            self._note_complaints()
            await self._group.stop()
            self._group = None

    async def terminate(self) -> None:
        """As an operator stops it: it takes leave of its clients."""
        assert self._group is not None
        os.kill(self._group.pid, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await self._group.wait()
        await self.stop()

    def signal(self, number: int) -> None:
        """To the first process only."""
        assert self._group is not None
        os.kill(self._group.pid, number)

    @staticmethod
    def signal_all(pids: Sequence[int], number: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def processes(self) -> list[int]:
        """The first, then its workers."""
        if self._group is None:
            return []
        pid = self._group.pid
        with suppress(OSError):
            return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        return []

    def usage(self) -> dict[int, Usage]:
        found = {}
        for pid in self.processes():
            with suppress(OSError):
                resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                found[pid] = Usage(resident, len(os.listdir(f"/proc/{pid}/fd")))
        return found

    def _note_complaints(self) -> None:
        assert self._group is not None
        words = ("Traceback", "CRITICAL", "BUG")
        self.complaints += [
            line for line in self._group.output(1 << 24).splitlines() if any(word in line for word in words)
        ]
