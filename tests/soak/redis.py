"""A Redis or Valkey server that the nodes share, and what can be done to it."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ..store.engines import Engine as RedisServer
from ..store.engines import Sentinels

_AWAY_S = 1.0
_STANDS_STILL_S = 3.0
_FAIL_OVER_S = 60.0  # Sentinel may promote a second time, and takes 10 s to make the other one a replica
# A server that forks on a busy machine is silent for longer than the 500 ms of other tests: Sentinel would then promote
# the one that has just come back, empty. Between two fail-overs it waits for twice its time.
_SENTINEL_SETTINGS = {"down-after-milliseconds": 1000, "failover-timeout": 1000}


class Redis:
    """One server with an append-only file."""

    async def start(self, folder: Path) -> None:
        options = ("--appendonly", "yes", "--appendfsync", "everysec")
        self._server = await asyncio.to_thread(RedisServer, folder / "redis", "redis", *options)
        self._copy = folder / "copy"

    @property
    def options(self) -> Sequence[str]:
        return ["--store", self._server.url()]

    @property
    def storms(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        return [
            ("Redis is killed", self._kill),
            ("Redis is restarted", self._restart),
            ("Redis stands still for 3 s", self._freeze),
            ("Redis answers nothing for 3 s", self._pause),
            ("Redis has no memory for 1 s", self._fill),
            ("Redis is flushed", self._flush),
            ("Redis is put back as it was before", self._restore),
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

    async def _pause(self) -> None:
        await asyncio.to_thread(self._server.ask, "CLIENT", "PAUSE", str(int(_STANDS_STILL_S * 1000)), "ALL")
        await asyncio.sleep(_STANDS_STILL_S)

    async def _fill(self) -> None:
        for most in ("1", "0"):
            await asyncio.to_thread(self._server.ask, "CONFIG", "SET", "maxmemory", most)
            await asyncio.sleep(_AWAY_S)

    async def _flush(self) -> None:
        await asyncio.to_thread(self._server.ask, "FLUSHALL")

    async def _restore(self) -> None:
        """To what was copied at the last time; then makes another copy."""
        await asyncio.to_thread(self._server.stop, signal.SIGKILL)
        if self._copy.exists():
            shutil.rmtree(self._server.folder)
            self._copy.rename(self._server.folder)
        shutil.copytree(self._server.folder, self._copy)
        await asyncio.to_thread(self._server.start)

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
        for setting, value_ms in _SENTINEL_SETTINGS.items():
            self._servers.sentinel.ask("SENTINEL", "SET", "main", setting, str(value_ms))

    @property
    def options(self) -> Sequence[str]:
        return ["--store", self._servers.url()]

    @property
    def storms(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        return [("the replica takes over", self._fail_over)]

    async def stop(self) -> None:
        await asyncio.to_thread(self._servers.stop)

    async def _fail_over(self) -> None:
        main, replica = await asyncio.to_thread(self._roles)
        await asyncio.to_thread(main.stop, signal.SIGKILL)
        await self._until(lambda: self._roles()[0] is replica)
        await asyncio.to_thread(main.start)
        await asyncio.to_thread(main.ask, "REPLICAOF", "127.0.0.1", str(replica.port))  # as Sentinel would, 10 s later
        await self._until(self._in_step)

    def _roles(self) -> tuple[RedisServer, RedisServer]:
        """The server that Sentinel names, and the other one."""
        servers = self._servers
        named = servers.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        pair = servers.master, servers.replica
        return pair if str(pair[0].port) in named else (pair[1], pair[0])

    def _in_step(self) -> bool:
        """Whether the other one follows it: Sentinel may have changed its mind in the meantime."""
        return "master_link_status:up" in self._roles()[1].ask("INFO", "replication")

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_FAIL_OVER_S):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.05)
