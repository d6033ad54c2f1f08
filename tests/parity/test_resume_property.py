"""Every resume, over random schedules: publish, cut, switch the transport, evict, restart, lose the log.

Whatever happens, a subscriber that goes on from its cursor gets exactly what is retained behind it, in order and once,
or a ``reset`` that names its channels. ``model`` says what that means, event by event; here are the schedules, a hub on
real sockets, and subscribers that read as much or as little as the schedule says.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushcompat.hub import hub
from pushcompat.limits import Limits, Retention
from pushcompat.message import Message

from ..harness import EXAMPLES, PATIENCE_S
from ..inprocess import LocalHub, running_hub
from .lossy import LossyStore
from .model import CHANNELS, Log, Logs, Reader
from .wires import WIRES, Event, LongPoll, Wire

AGE_S = 1000.0
TTL_S = 100.0
SUBSCRIPTIONS = (("a",), ("a", "b"), ("c", "b", "a"))
TELLING = [name for name, wire in WIRES.items() if wire.says_cursor]
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Subscriber:
    def __init__(self, logs: Logs, channels: tuple[str, ...]) -> None:
        self.reader = Reader(logs, channels)
        self._names = ",".join(channels)
        self._socket: socket.socket | None = None
        self._wire: Wire | None = None
        self._events: deque[Event] = deque()
        self._asks = False  # a poll is under way

    @property
    def connected(self) -> bool:
        return self._socket is not None

    async def open(self, hub: LocalHub, wire: str, start: str) -> None:
        self.cut()
        self._socket = await hub.connect()
        self._wire = WIRES[wire]()
        if start == "earliest" or (start == "cursor" and self.reader.asks_earliest):
            self.reader.start_at_the_earliest()
            await self._ask({"cursor": "earliest"})
        elif start == "now" or self.reader.cursor is None:
            self.reader.start_now()
            await self._ask({})
        else:
            self.reader.resume()
            await self._ask({"cursor": self.reader.cursor})
            return
        if isinstance(self._wire, LongPoll) and self.reader.cursor is None:
            await self.event()  # it is no subscription yet, and is answered at once
            return
        await hub.until_subscribed(self._socket)  # what is now, and what is earliest, depends on when

    def cut(self) -> None:
        """What was sent and not read is lost."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._socket.close()
        self._socket = None
        self._events.clear()

    async def event(self) -> None:
        """Takes the next event."""
        while not self._events:
            if isinstance(self._wire, LongPoll) and not self._asks:
                assert self.reader.cursor is not None
                await self._ask({"cursor": self.reader.cursor})
            assert self._socket is not None
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 1 << 16), PATIENCE_S)
            assert data, "the server ended the connection"
            self._feed(data)
        self.reader.take(self._events.popleft())

    async def catch_up(self) -> None:
        while self.reader.has_pending:
            await self.event()
        while self._events or self._receive():
            await self.event()

    def _receive(self) -> bool:
        """Whatever has come beyond what must: it is held to the same rules."""
        assert self._socket is not None
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        self._feed(data)
        return bool(self._events)

    def _feed(self, data: bytes) -> None:
        assert self._wire is not None
        self._events.extend(self._wire.feed(data))
        if isinstance(self._wire, LongPoll) and self._wire.answered:
            self._asks = False

    async def _ask(self, params: dict[str, str]) -> None:
        assert self._wire is not None
        assert self._socket is not None
        self._asks = True
        await asyncio.get_running_loop().sock_sendall(self._socket, self._wire.request(self._names, params))


class World:
    """The server, its model, and its subscribers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ahead_s = 0.0
        self._published = 0
        self._servers = AsyncExitStack()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        await self._start()
        self.logs = Logs(self._new_log())
        self.subscribers = [Subscriber(self.logs, channels) for channels in SUBSCRIPTIONS]
        try:
            yield self
        finally:
            for subscriber in self.subscribers:
                subscriber.cut()
            await self._servers.aclose()

    async def _start(self) -> None:
        self.store = LossyStore(self._limits.retention)
        self.hub = await self._servers.enter_async_context(running_hub(self.store, self._limits))
        self.hub.history._clock = lambda: time.monotonic() + self._ahead_s

    def _new_log(self) -> Log:
        return Log(self.store.epoch, self._limits.retention.count)

    async def quiet(self) -> None:
        await self.hub.until_quiet(self.store.last)

    # What can happen

    async def publish(
        self, names: list[str], times: int, key: str | None, ttl_s: float | None, padding: int, waits: bool
    ) -> None:
        drafts = []
        for _ in range(times):
            for name in names:
                self._published += 1
                data = f"{self._published}{'.' * padding}"
                drafts.append(Message(name, data.encode(), key=key, ttl_s=ttl_s))
        self.logs.now.publish(drafts)
        assert await self.store.publish(*drafts) == self.logs.now.head
        if waits:
            await self.quiet()

    async def open(self, who: int, wire: str, start: str) -> None:
        await self.quiet()
        await self.subscribers[who].open(self.hub, wire, start)

    async def cut(self, who: int) -> None:
        self.subscribers[who].cut()

    async def read(self, who: int, count: int) -> None:
        subscriber = self.subscribers[who]
        for _ in range(count):
            if subscriber.connected and subscriber.reader.has_pending:
                await subscriber.event()

    async def settle(self) -> None:
        await self.quiet()
        for subscriber in self.subscribers:
            if subscriber.connected:
                await subscriber.catch_up()

    async def grow_older(self, seconds: float) -> None:
        await self.quiet()
        self._ahead_s += seconds
        self.store.grow_older(seconds)
        self.logs.now.grow_older(seconds, AGE_S)
        self.hub.history.expire()

    async def trim_before_read(self, count: int) -> None:
        await self.quiet()
        self.store.trim_before_read(count)
        self.logs.now.trim_before_read(count)

    async def fail_over(self, count: int) -> None:
        await self.quiet()
        self.store.fail_over(count)
        kept = self.store.kept().messages
        self.logs.go_on(self.logs.now.after_fail_over(self.store.epoch, kept, self.store.last))
        await self._until_told()

    async def lose_position(self) -> None:
        await self.quiet()
        self.store.lose_position()
        self.logs.now.reload(self.store.kept())
        await self._until_told()

    async def restart(self) -> None:
        for subscriber in self.subscribers:
            subscriber.cut()
        await self._servers.aclose()
        await self._start()
        self.logs.go_on(self._new_log())

    async def _until_told(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.store.is_told:
                await asyncio.sleep(0)


def step(action: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(action), *arguments)


who = st.integers(0, len(SUBSCRIPTIONS) - 1)
publish = step(
    "publish",
    st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True),
    st.integers(1, 4),
    st.sampled_from([None, None, None, "k", ""]),
    st.sampled_from([None, None, None, TTL_S]),
    st.sampled_from([0, 0, 200]),
    st.booleans(),
)
resume = step("open", who, st.sampled_from(TELLING), st.just("cursor"))
usual = st.one_of(
    publish,
    publish,
    publish,
    step("open", who, st.sampled_from(TELLING), st.just("cursor")),
    step("open", who, st.sampled_from(TELLING), st.sampled_from(["now", "earliest"])),
    step("cut", who),
    step("read", who, st.integers(1, 6)),
    step("settle"),
)
rare = st.one_of(
    step("grow_older", st.sampled_from([1.0, 1.5 * TTL_S, 1.5 * AGE_S])),
    step("trim_before_read", st.integers(1, 3)),
    step("fail_over", st.integers(0, 4)),
    step("lose_position"),
    step("restart"),
)
steps = st.integers(0, 9).flatmap(lambda number: rare if number == 9 else usual)
schedules = st.lists(steps, min_size=30, max_size=60)
all_limits = st.builds(
    Limits,
    send_bytes=st.sampled_from([1, 300, 256 * 1024]),
    max_visits=st.sampled_from([1, 3, 256]),
    retention=st.builds(Retention, count=st.sampled_from([1, 2, 3, 6]), age_s=st.just(AGE_S)),
)


@pytest.fixture(scope="module")
def runner() -> Any:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(hub, "_LOST_RETRY_S", (0.0, 0.0))  # most of the time would be the pauses of logs lost again
        yield runner


@settings(max_examples=200 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedule=schedules, limits=all_limits)
def test_every_resume_is_exact_or_a_reset(
    runner: asyncio.Runner, schedule: list[tuple[Any, ...]], limits: Limits
) -> None:
    async def play() -> None:
        async with World(limits).running() as world:
            for action, *arguments in schedule:
                await getattr(world, action)(*arguments)
            for index, subscriber in enumerate(world.subscribers):
                if not subscriber.connected:
                    await world.open(index, "websocket-json", "cursor")
            await world.settle()
            assert not any(subscriber.reader.has_pending for subscriber in world.subscribers)

    runner.run(play())
