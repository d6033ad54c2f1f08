"""Scenarios for a hub in this process, with clients that can be cut off and a log that can be lost."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pushcompat.hub.requests import HandOver
from pushcompat.limits import Limits
from pushcompat.message import Message, format_cursor

from ..harness import PATIENCE_S
from ..inprocess import LocalHub, running_hub
from ..parity.lossy import LossyStore
from ..parity.wires import WIRES, Event


class LocalClient:
    """A client's connection, on which one request follows another."""

    def __init__(self, hub: LocalHub, sock: socket.socket) -> None:
        self.hub = hub
        self.socket = sock
        self._events: deque[Event] = deque()

    async def subscribe(self, wire: str, names: str, **params: str) -> None:
        self._wire = WIRES[wire]()
        await asyncio.get_running_loop().sock_sendall(self.socket, self._wire.request(names, params))

    async def event(self) -> Event:
        """The next one; of pings only what a poll is answered."""
        while not self._events:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 1 << 16), PATIENCE_S)
            assert data, "the server ended the connection"
            self._events.extend(
                e for e in self._wire.feed(data) if e.kind != "ping" or self._wire.transport != "eventsource"
            )
        return self._events.popleft()

    async def ended(self) -> Event:
        """The end of the connection; nothing may come before it."""
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 1 << 16), PATIENCE_S)
        assert not data
        return self._wire.end()

    async def until(self, kind: str) -> Event:
        while (event := await self.event()).kind != kind:
            pass
        return event


class Stage:
    def __init__(self, hub: LocalHub, store: LossyStore) -> None:
        self.hub = hub
        self.store = store
        self._clients: list[LocalClient] = []

    async def client(self) -> LocalClient:
        self._clients.append(LocalClient(self.hub, await self.hub.connect()))
        return self._clients[-1]

    async def subscribed(self, wire: str, names: str, **params: str) -> LocalClient:
        client = await self.client()
        await client.subscribe(wire, names, **params)
        await self.hub.until_subscribed(client.socket)
        return client

    async def publish(self, *names: str) -> str:
        """One update in each; returns the cursor of the last."""
        head = await self.store.publish(*(Message(name, name.encode()) for name in names))
        await self.hub.until_quiet(head)
        return format_cursor(self.store.epoch, head)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0)

    @property
    def head(self) -> str:
        """The cursor of the log's last message."""
        return self.hub.history.cursor(self.hub.history.head)

    def count(self, name: str) -> int:
        """Who follows the channel."""
        return self.hub.history.subscribers(self.hub.history.find(name))

    def close(self) -> None:
        for client in self._clients:
            client.socket.close()


@asynccontextmanager
async def staged(limits: Limits, hand_over: HandOver | None) -> AsyncIterator[Stage]:
    store = LossyStore(limits.retention)
    async with running_hub(store, limits, hand_over) as hub:
        stage = Stage(hub, store)
        try:
            yield stage
        finally:
            stage.close()


def play(
    scenario: Callable[[Stage], Awaitable[None]], limits: Limits | None = None, hand_over: HandOver | None = None
) -> None:
    async def played() -> None:
        async with staged(limits or Limits(), hand_over) as stage:
            await scenario(stage)

    asyncio.run(played())
