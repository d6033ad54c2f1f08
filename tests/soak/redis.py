"""A Redis or Valkey server that the nodes share, and what can be done to it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ..harness import PATIENCE_S
from ..store.engines import Engine as RedisServer
from ..store.engines import Sentinels

_AWAY_S = 1.0
_STANDS_STILL_S = 3.0


class Redis:
    """One server with an append-only file."""

    async def start(self, folder: Path) -> None:
        options = ("--appendonly", "yes", "--appendfsync", "everysec")
        self._server = await asyncio.to_thread(RedisServer, folder / "redis", "redis", *options)

    @property
    def options(self) -> Sequence[str]:
        return ["--store", self._server.url()]

    @property
    def storms(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        return [
            ("Redis is killed", self._kill),
            ("Redis is restarted", self._restart),
            ("Redis stands still for 3 s", self._freeze),
            ("all connections to Redis are cut", self._cut),
        ]

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.stop, signal.SIGKILL)

    async def _kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def _restart(self) -> None:
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        await asyncio.to_thread(self._server.stop, number)
        await asyncio.sleep(_AWAY_S)
        await asyncio.to_thread(self._server.start)

    async def _freeze(self) -> None:
        self._server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(_STANDS_STILL_S)
        self._server.send_signal(signal.SIGCONT)

    async def _cut(self) -> None:
        await asyncio.to_thread(self._server.ask, "CLIENT", "KILL", "TYPE", "normal")


class WithSentinel:
    """A server and its replica. When the one is killed the other takes over, perhaps without the tail of the log; the
    one comes back as the replica.
    """

    def __init__(self, program: str = "redis") -> None:
        self._program = program

    async def start(self, folder: Path) -> None:
        (folder / "redis").mkdir()
        self._servers = await asyncio.to_thread(Sentinels, folder / "redis", self._program)
        self._servers.sentinel.ask("SENTINEL", "SET", "main", "failover-timeout", "1000")  # it waits for twice that
        self._main, self._replica = self._servers.master, self._servers.replica

    @property
    def options(self) -> Sequence[str]:
        return ["--store", self._servers.url()]

    @property
    def storms(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        return [("the replica takes over", self._fail_over)]

    async def stop(self) -> None:
        await asyncio.to_thread(self._servers.stop)

    async def _fail_over(self) -> None:
        await asyncio.to_thread(self._main.stop, signal.SIGKILL)
        port = str(self._replica.port)
        await self._until(self._servers.sentinel, port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        await asyncio.to_thread(self._main.start)
        await asyncio.to_thread(self._main.ask, "REPLICAOF", "127.0.0.1", port)  # as Sentinel would, 10 s later
        self._main, self._replica = self._replica, self._main
        await self._until(self._replica, "master_link_status:up", "INFO", "replication")

    async def _until(self, server: RedisServer, expected: str, *command: str) -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            while expected not in await asyncio.to_thread(server.ask, *command):
                await asyncio.sleep(0.05)
