"""Programs in process groups of their own, so that whatever they start ends, stops and goes on with them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..harness import PATIENCE_S

# Where Debian has its proxies, and users do not look; and where those of PyPI are
PATH = f"{os.environ['PATH']}:/usr/sbin:{sysconfig.get_path('scripts')}"


class Guard:
    """Ends a process, or a group (a negative number), when this one is gone before it, in whatever way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def over(cls, target: int) -> Guard:
        command = ["sh", "-c", 'read _ || kill -s KILL -- "$0"', str(target)]
        return cls(
            await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, start_new_session=True)
        )

    async def leave(self) -> None:
        if self._process.returncode is None:
            await self._process.communicate(b"\n")


class Group:
    """A program and its children, with their standard output and error in a file."""

    def __init__(self, process: asyncio.subprocess.Process, guard: Guard, log: Path) -> None:
        self._process = process
        self._guard = guard
        self._log = log

    @classmethod
    async def start(cls, command: Sequence[str], folder: Path) -> Group:
        """``folder`` is its home, its working directory, and where it puts its temporary files."""
        log = folder / f"{Path(command[0]).name}.log"
        own = {"PATH": PATH, "HOME": str(folder), "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=folder, env={**os.environ, **own}, start_new_session=True,
            )  # fmt: skip
        return cls(process, await Guard.over(-process.pid), log)

    @property
    def pid(self) -> int:
        """Of the program itself."""
        return self._process.pid

    async def wait(self) -> int:
        """Waits until the program itself has ended; returns its exit code."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)  # first, so that what has locks or shared memory gives them back
        try:
            await asyncio.wait_for(self._process.wait(), 0.5)
        except TimeoutError:
            pass
        self.signal(signal.SIGKILL)
        await self._process.wait()
        await self._guard.leave()

    async def listening(self, port: int) -> None:
        """Waits until it accepts connections there."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                except OSError:
                    assert self._process.returncode is None, self.output()
                    await asyncio.sleep(0.02)

    def output(self, most: int = 2000) -> str:
        """The last characters of it."""
        return self._log.read_text(errors="replace")[-most:]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
