"""Subscriptions from inside the hub: who counts, where they start, and what they are told when the log is lost."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pushcompat.limits import Limits, Retention
from pushcompat.message import Message, format_cursor
from pushcompat.store.base import Retained

from ..harness import PATIENCE_S
from ..inprocess import LocalHub, running_hub
from ..parity.forgetful import ForgetfulStore
from ..parity.wires import WIRES, Event
from .rig import EPOCH, MakeRig, Rig

KEEPING_FEW = Limits(retention=Retention(count=2))


class Visitor:
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

    async def until(self, kind: str) -> Event:
        while (event := await self.event()).kind != kind:
            pass
        return event


class World:
    def __init__(self, hub: LocalHub, store: ForgetfulStore) -> None:
        self.hub = hub
        self.store = store
        self._visitors: list[Visitor] = []

    async def visitor(self) -> Visitor:
        self._visitors.append(Visitor(self.hub, await self.hub.connect()))
        return self._visitors[-1]

    async def subscribed(self, wire: str, names: str, **params: str) -> Visitor:
        visitor = await self.visitor()
        await visitor.subscribe(wire, names, **params)
        await self.hub.until_subscribed(visitor.socket)
        return visitor

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
        for visitor in self._visitors:
            visitor.socket.close()


@asynccontextmanager
async def world_of(limits: Limits) -> AsyncIterator[World]:
    store = ForgetfulStore(limits.retention)
    async with running_hub(store, limits) as hub:
        world = World(hub, store)
        try:
            yield world
        finally:
            world.close()


def play(scenario: Callable[[World], Awaitable[None]], limits: Limits | None = None) -> None:
    async def played() -> None:
        async with world_of(limits or Limits()) as world:
            await scenario(world)

    asyncio.run(played())


# Who counts


def test_a_subscription_counts_until_its_connection_ends() -> None:
    async def scenario(world: World) -> None:
        visitors = [await world.subscribed(wire, "a,b") for wire in ("websocket-json", "eventsource-text")]
        assert world.hub.metrics.subscriptions == Counter(websocket=1, eventsource=1)
        assert (world.count("a"), world.count("b")) == (2, 2)
        for visitor in visitors:
            visitor.socket.close()
        await world.until(lambda: world.hub.subscribers == 0)
        assert (world.count("a"), world.count("b")) == (0, 0)

    play(scenario)


def test_a_poller_counts_between_two_polls() -> None:
    async def scenario(world: World) -> None:
        poller = await world.visitor()
        await poller.subscribe("longpoll-json", "a")
        cursor = (await poller.event()).cursor or ""
        assert (world.count("a"), len(world.hub.history)) == (0, 0)  # it only asked for a cursor
        await poller.subscribe("longpoll-json", "a", cursor=cursor, wait="0")
        await poller.event()
        assert world.count("a") == 1
        assert world.hub.metrics.subscriptions == Counter(longpoll=1)

    play(scenario)


def test_a_poller_that_asks_for_other_channels_follows_those_alone() -> None:
    async def scenario(world: World) -> None:
        poller = await world.visitor()
        await poller.subscribe("longpoll-json", "a", cursor=world.head, wait="0")
        await poller.event()
        await poller.subscribe("longpoll-json", "b,c", cursor=world.head, wait="0")
        await poller.event()
        assert [world.count(name) for name in "abc"] == [0, 1, 1]
        assert world.hub.metrics.subscriptions == Counter(longpoll=1)

    play(scenario)


@pytest.mark.parametrize(("wire", "transport"), [("websocket-json", "websocket"), ("eventsource-json", "eventsource")])
def test_a_poller_that_goes_on_as_a_stream_is_counted_as_one(wire: str, transport: str) -> None:
    async def scenario(world: World) -> None:
        visitor = await world.visitor()
        await visitor.subscribe("longpoll-json", "a", cursor=world.head, wait="0")
        cursor = (await visitor.event()).cursor
        assert cursor is not None
        await visitor.subscribe(wire, "a", cursor=cursor)
        assert (await visitor.event()).kind == "open"
        assert +world.hub.metrics.subscriptions == Counter({transport: 1})
        await world.publish("a")
        assert (await visitor.event()).data == "a"
        visitor.socket.close()
        await world.until(lambda: world.hub.subscribers == 0)
        assert not any(world.hub.metrics.subscriptions.values())

    play(scenario)


def test_channels_that_many_visit_once_are_forgotten() -> None:
    async def scenario(world: World) -> None:
        visitor = await world.visitor()
        for number in range(3000):
            await visitor.subscribe("longpoll-json", f"c{number}", cursor=world.head, wait="0")
            await visitor.event()
        assert len(world.hub.history) == 1
        visitor.socket.close()
        await world.until(lambda: world.hub.subscribers == 0)

    play(scenario)


def test_channels_of_pollers_that_do_not_come_back_are_forgotten_after_a_while() -> None:
    async def scenario(world: World) -> None:
        for number in range(300):
            visitor = await world.visitor()
            await asyncio.get_running_loop().sock_sendall(
                visitor.socket, b"GET /channels/c%d?cursor=%b&wait=0 HTTP/1.0\r\n\r\n" % (number, world.head.encode())
            )
            while await asyncio.get_running_loop().sock_recv(visitor.socket, 1 << 16):
                pass
            visitor.socket.close()
        assert world.count("c299") == 1
        world.hub.timers.now += 11
        world.hub._subscriptions.tick()
        assert (world.count("c299"), len(world.hub.history)) == (0, 0)

    play(scenario)


# Polls that are compared


def test_a_poll_that_comes_again_gets_what_a_first_one_would() -> None:
    async def scenario(world: World) -> None:
        poller = await world.visitor()
        await poller.subscribe("longpoll-json", "a,b")
        cursor = (await poller.event()).cursor
        for number in range(20):
            assert cursor is not None
            await poller.subscribe("longpoll-json", "a,b", cursor=cursor)
            if number % 2:
                await world.hub.until_subscribed(poller.socket)
            last = await world.publish(*("ab" if number % 3 else "b"))
            data = [(await poller.event()).data for _ in ("ab" if number % 3 else "b")]
            assert data == list("ab" if number % 3 else "b")
            cursor = (await poller.event()).cursor
            assert cursor == last

    play(scenario)


def test_a_poll_that_comes_again_too_late_is_reset() -> None:
    async def scenario(world: World) -> None:
        cursor = await world.publish("a")
        poller = await world.subscribed("longpoll-json", "a", cursor=cursor)
        await world.publish("a")
        assert (await poller.event()).kind == "message"
        cursor = (await poller.event()).cursor or ""
        await poller.subscribe("longpoll-json", "a", cursor=cursor)
        await world.publish("a")
        assert (await poller.event()).kind == "message"
        await poller.event()
        last = await world.publish(*"aaa")
        await poller.subscribe("longpoll-json", "a", cursor=cursor)
        assert await poller.event() == Event("reset", last, channels=("a",))

    play(scenario, KEEPING_FEW)


# The log is lost


@pytest.mark.parametrize("wire", [name for name, wire in WIRES.items() if wire.says_cursor])
@pytest.mark.parametrize("names", ["a", "a,b"])
@pytest.mark.parametrize("start", ["now", "earliest", "cursor"])
def test_when_the_log_becomes_another_one_everyone_is_told(wire: str, names: str, start: str) -> None:
    async def scenario(world: World) -> None:
        await world.publish("b", *"aaa")
        cursor = await world.publish("a")
        params = {"now": {"wait": "20"}, "earliest": {"cursor": "earliest"}, "cursor": {"cursor": cursor}}[start]
        visitor = await world.subscribed(wire, names, **params)
        if start == "earliest" and wire == "longpoll-json":
            await visitor.until("ping")
            await visitor.subscribe(wire, names, cursor=cursor)
            await world.until(lambda: any(c.expires_at < 1 << 59 for c in world.hub.sockets.connections()))
        world.store.fail_over(3)
        reset = await visitor.until("reset")
        assert reset.channels == tuple(names.split(","))
        assert reset.cursor == format_cursor(world.store.epoch, world.store.head)
        await world.publish("a")
        if wire == "longpoll-json":
            await visitor.subscribe(wire, names, cursor=reset.cursor)
        assert (await visitor.until("message")).data == "a"

    play(scenario, KEEPING_FEW)


def test_whoever_asked_for_the_earliest_of_a_log_that_is_another_one_now_is_not_forgiven() -> None:
    async def scenario(world: World) -> None:
        visitor = await world.subscribed("websocket-json", "a,b", cursor="earliest")
        await world.publish("a")
        assert (await visitor.until("message")).data == "a"
        world.store.fail_over(1)
        assert (await visitor.event()).channels == ("a", "b")

    play(scenario)


def test_when_the_log_becomes_another_one_during_a_pass_everyone_is_told_too() -> None:
    async def scenario(world: World) -> None:
        crowd = [await world.subscribed("websocket-json", "a") for _ in range(20)]
        channel = world.hub.history.channel("a")
        await world.store.publish(*(Message("a", b"x") for _ in range(5)))
        await world.until(lambda: channel.to_visit is not None and channel.dirty)
        world.store.fail_over(4)
        for visitor in crowd:
            assert (await visitor.until("reset")).channels == ("a",)

    play(scenario, Limits(visits=4))


def test_whoever_missed_what_was_trimmed_before_we_saw_it_is_told() -> None:
    async def scenario(world: World) -> None:
        cursor = await world.publish("a", "b")
        visitors = {wire: await world.subscribed(wire, "a,b", cursor=cursor) for wire in WIRES}
        world.store.trim_unseen(5)
        for wire, visitor in visitors.items():
            if wire == "websocket-text":
                assert (await visitor.until("message")).data == "UPDATED"
                continue
            reset = await visitor.until("reset")
            assert (reset.channels, reset.cursor) == (("a", "b"), format_cursor(world.store.epoch, 7))
        again = await world.subscribed("eventsource-json", "a,b", cursor=cursor)
        assert (await again.until("reset")).channels == ("a", "b")

    play(scenario)


def test_when_nothing_was_lost_nobody_is_told() -> None:
    async def scenario(world: World) -> None:
        await world.publish("quiet")
        cursor = await world.publish(*["busy"] * 5)
        visitors = [await world.subscribed("websocket-json", names, cursor=cursor) for names in ("quiet", "quiet,busy")]
        world.store.stumble()
        await world.until(lambda: world.store.is_told)
        await world.publish("quiet")
        for visitor in visitors:
            assert (await visitor.event()).kind == "open"
            assert (await visitor.event()).data == "quiet"

    play(scenario, KEEPING_FEW)


def test_a_start_does_not_bring_back_what_was_over_before() -> None:
    async def scenario() -> None:
        store = ForgetfulStore(Retention())
        await store.publish(Message("a", b"1"), Message("a", b"2", ttl_s=60.0), Message("b", b"3", ttl_s=60.0))
        store.grow_older(61)
        async with running_hub(store, Limits()) as hub:
            world = World(hub, store)
            visitor = await world.visitor()
            await visitor.subscribe("longpoll-json", "a,b")
            assert (await visitor.event()).cursor == format_cursor(store.epoch, 3)
            await world.publish("b")
            await visitor.subscribe("longpoll-json", "a,b", cursor="earliest")
            assert [(await visitor.event()).data for _ in "1b"] == ["1", "b"]
            assert (await visitor.event()).cursor == format_cursor(store.epoch, 4)
            world.close()

    asyncio.run(scenario())


def test_a_log_that_becomes_another_one_while_it_is_loaded_is_called_what_it_is() -> None:
    class Hasty(ForgetfulStore):
        async def retained(self) -> Retained:
            self.fail_over(1)
            return await super().retained()

    async def scenario() -> None:
        store = Hasty(Retention())
        earlier = store.epoch
        await store.publish(Message("a", b"1"), Message("a", b"2"))
        async with running_hub(store, Limits()) as hub:
            world = World(hub, store)
            visitor = await world.subscribed("longpoll-json", "a", cursor=format_cursor(earlier, 1))
            assert await visitor.event() == Event("reset", format_cursor(store.epoch, 1), channels=("a",))
            world.close()

    asyncio.run(scenario())


def test_a_start_brings_back_what_the_store_has_and_resets_no_quiet_channel() -> None:
    async def scenario() -> None:
        store = ForgetfulStore(KEEPING_FEW.retention)
        await store.publish(Message("quiet", b"1"), Message("quiet", b"2"))
        await store.publish(*(Message("busy", b"x") for _ in range(50)))
        async with running_hub(store, KEEPING_FEW) as hub:
            world = World(hub, store)
            visitor = await world.subscribed("longpoll-json", "quiet", cursor=format_cursor(store.epoch, 1))
            assert (await visitor.event()).data == "2"
            assert (await visitor.event()).cursor == format_cursor(store.epoch, 52)
            await visitor.subscribe("longpoll-json", "quiet,busy", cursor="earliest")
            assert [(await visitor.event()).data for _ in range(4)] == ["1", "2", "x", "x"]
            world.close()

    asyncio.run(scenario())


def test_what_a_client_is_called_is_cut_to_a_length_that_a_log_can_bear() -> None:
    async def scenario(world: World) -> None:
        await world.subscribed("websocket-json", "a", client="x" * 5000)
        (connection,) = [c for c in world.hub.sockets.connections() if c.channels]
        assert connection.client == "x" * 64

    play(scenario)


# The cursor that a subscription is given


def test_whoever_is_caught_up_stands_at_the_head_of_the_log(rig: Rig) -> None:
    subscriber = rig.subscribe("a", "c")
    rig.publish("b", "b")
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 2)
    rig.publish("a")
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 0)
    rig.run()
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 3)


def test_whoever_is_behind_stands_where_its_bytes_end(make_rig: MakeRig) -> None:
    rig = make_rig(send_bytes=1)
    rig.publish(*"aba", data=b"x")
    subscriber = rig.subscribe("a", "b", cursor=0)
    rig.fanout.catch_up(subscriber)
    assert rig.read(subscriber) == ["1x"]
    assert rig.cursor(subscriber) == format_cursor(EPOCH, 1)


def test_whoever_is_ahead_of_the_log_stays_there(rig: Rig) -> None:
    ahead = rig.subscribe("a", cursor=3)
    rig.publish("a", "a")
    rig.run()
    assert (ahead.cursor, rig.cursor(ahead)) == (3, format_cursor(EPOCH, 3))
    rig.publish("a", "a")
    rig.run()
    assert rig.read(ahead) == ["4"]


def test_messages_that_are_gone_without_loss_move_the_cursor_and_say_nothing(rig: Rig) -> None:
    rig.subscribe("a")
    rig.fanout.mark_dirty(rig.history.append(Message("a", b"", ttl_s=5.0, sequence=1)))
    rig.run()
    rig.now = 5.0
    rig.history.expire()
    subscriber = rig.subscribe("a", cursor=0)
    rig.fanout.catch_up(subscriber)
    assert (rig.read(subscriber), subscriber.cursor) == ([], 1)
