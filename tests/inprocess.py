"""A hub in this process, on real sockets: for what needs a look inside, or thousands of runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pushcompat.access.policy import Policy
from pushcompat.hub import Hub, Settings
from pushcompat.hub.requests import HandOver
from pushcompat.limits import Limits
from pushcompat.metrics import Metrics
from pushcompat.store.base import Store
from pushcompat.store.presence import Registry

from .harness import KEY, PATIENCE_S


class LocalHub(Hub):
    def __init__(self, store: Store, limits: Limits, hand_over: HandOver, registry: Registry | None = None) -> None:
        self.metrics = Metrics()
        super().__init__(store, Settings(limits, Policy([KEY.encode()])), self.metrics, hand_over, registry=registry)
        self.port = 0
        self.history = self._context.history
        self.sockets = self._context.sockets
        self.timers = self._context.timers
        self.fanout = self._fanout

    async def stop_clock(self) -> None:
        """From now on time passes by ``let_pass`` alone."""
        ticking = self._tasks.pop()
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)

    async def let_pass(self, seconds: int = 1) -> None:
        """What is due in these seconds is done when this returns."""
        for _ in range(seconds):
            self._subscriptions.tick()
            self.history.expire()
            self._loop.tick(self.timers.now + 1)
            while self._context.turn_scheduled:
                await asyncio.sleep(0)

    async def connect(self) -> socket.socket:
        """A client's socket, for the loop's ``sock_…`` methods."""
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock

    async def until_quiet(self, head: int) -> None:
        """Waits until the log is seen up to there, and delivered."""
        async with asyncio.timeout(PATIENCE_S):
            while self.history.head < head or self.fanout.busy or self._context.turn_scheduled:
                await asyncio.sleep(0)

    async def until_idle(self) -> None:
        """Waits until what has arrived is read, and done."""
        idle = 0
        async with asyncio.timeout(PATIENCE_S):
            while idle < 5:
                await asyncio.sleep(0)
                idle = 0 if self._context.turn_scheduled or self.sockets.readable else idle + 1

    async def until_subscribed(self, sock: socket.socket) -> None:
        """Waits until the client's request has become a subscription."""
        address = sock.getsockname()
        async with asyncio.timeout(PATIENCE_S):
            while not any(c.channels and c.address == address for c in self.sockets.connections()):
                await asyncio.sleep(0)


@asynccontextmanager
async def running_hub(
    store: Store, limits: Limits, hand_over: HandOver | None = None, registry: Registry | None = None
) -> AsyncIterator[LocalHub]:
    hub = LocalHub(store, limits, hand_over or _nobody, registry)
    listener = socket.create_server(("127.0.0.1", 0))
    hub.port = listener.getsockname()[1]
    await hub.start()
    hub.listener.listen([listener])
    try:
        yield hub
    finally:
        await hub.close()
    assert not hub.failed.is_set()


def _nobody(sock: socket.socket, address: object, received: bytes, admin: bool) -> None:
    raise AssertionError(f"a request that is not the hub's: {received!r}")
