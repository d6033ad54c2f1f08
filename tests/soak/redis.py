"""A Redis server that the nodes share, and what can be done to it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ..store.engines import Engine as RedisServer

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
