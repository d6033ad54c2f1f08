"""Subscribers ahead of this process: held until it is where they are, unless the log itself is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from pushcompat.limits import Limits, Retention
from pushcompat.message import Message, format_cursor
from pushcompat.store.base import News, StoreError

from ..harness import PATIENCE_S
from ..inprocess import LocalHub, running_hub
from ..parity.lossy import LossyStore
from ..parity.wires import WIRES
from .stage import LocalClient

CURSORS = [name for name in sorted(WIRES) if "text" not in name]  # that name their cursor


class BehindStore(LossyStore):
    """Another process's messages come here when the test says so."""

    def __init__(self) -> None:
        super().__init__(Retention())
        self.held_back: list[Message] = []
        self.is_away = False
        self.other_epoch: str | None = None  # which the log has already, and this process not yet
        self.asked = 0

    async def follow(self, after: int, epoch: str, news: News) -> None:
        def hold_back(messages: Sequence[Message]) -> None:
            self.held_back += messages

        self.news = news
        await super().follow(after, epoch, hold_back)

    async def head(self) -> tuple[str, int]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreError("away")
        epoch, head = await super().head()
        return self.other_epoch or epoch, head

    def catch_up(self) -> None:
        held_back, self.held_back = self.held_back, []
        self.news(held_back)


async def subscribed(hub: LocalHub, wire: str, cursor: str, **params: str) -> LocalClient:
    client = LocalClient(hub, await hub.connect())
    await client.subscribe(wire, "a", cursor=cursor, **params)
    await hub.until_subscribed(client.socket)
    return client


Scenario = Callable[[BehindStore, LocalHub], Awaitable[None]]


def play(scenario: Scenario) -> None:
    """With a hub that follows the log."""

    async def played() -> None:
        store = BehindStore()
        async with running_hub(store, Limits()) as hub:
            await hub.until_idle()
            await scenario(store, hub)

    asyncio.run(asyncio.wait_for(played(), PATIENCE_S))


async def until_asked(store: BehindStore) -> None:
    while not store.asked:
        await asyncio.sleep(0)


@pytest.mark.parametrize("wire", CURSORS)
def test_a_subscriber_ahead_of_this_process_waits_for_it_and_never_moves_back(wire: str) -> None:
    async def scenario(store: BehindStore, hub: LocalHub) -> None:
        await store.publish(*(Message("a", b"%d" % n) for n in (1, 2, 3)))
        client = await subscribed(hub, wire, format_cursor(store.epoch, 2))
        await until_asked(store)
        await hub.until_idle()
        store.catch_up()
        message = await client.until("message")
        assert (message.data, message.cursor) == ("3", format_cursor(store.epoch, 3))
        client.socket.close()

    play(scenario)


@pytest.mark.parametrize("wire", CURSORS)
def test_a_subscriber_ahead_of_the_log_gets_a_reset_once_its_head_is_known(wire: str) -> None:
    async def scenario(store: BehindStore, hub: LocalHub) -> None:
        await store.publish(Message("a", b"1"))
        store.catch_up()
        store.is_away = True
        client = await subscribed(hub, wire, format_cursor(store.epoch, 900))
        await until_asked(store)
        store.is_away = False
        assert (await client.until("reset")).cursor == format_cursor(store.epoch, 1)
        client.socket.close()

    play(scenario)


@pytest.mark.parametrize("wire", CURSORS)
def test_the_head_of_another_epoch_moves_no_subscriber_back_within_this_one(wire: str) -> None:
    async def scenario(store: BehindStore, hub: LocalHub) -> None:
        await store.publish(*(Message("a", b"%d" % n) for n in (1, 2, 3)))
        store.other_epoch = "zzzzzzzz"
        client = await subscribed(hub, wire, format_cursor(store.epoch, 4))
        await until_asked(store)
        await hub.until_idle()
        await store.publish(*(Message("a", b"%d" % n) for n in (4, 5)))
        store.catch_up()
        event = await client.until("message")
        assert (event.data, event.cursor) == ("5", format_cursor(store.epoch, 5))
        client.socket.close()

    play(scenario)


def test_polls_that_repeat_each_other_are_looked_at_too() -> None:
    async def scenario(store: BehindStore, hub: LocalHub) -> None:
        await store.publish(Message("a", b"1"))
        store.catch_up()
        client = await subscribed(hub, "longpoll-json", format_cursor(store.epoch, 0), wait="20")
        await client.until("message")
        await client.subscribe("longpoll-json", "a", cursor=format_cursor(store.epoch, 9), wait="20")
        assert (await client.until("reset")).cursor == format_cursor(store.epoch, 1)
        client.socket.close()

    play(scenario)


def test_the_head_is_asked_for_once_for_all_who_come_together() -> None:
    async def scenario(store: BehindStore, hub: LocalHub) -> None:
        await store.publish(*(Message("a", b"%d" % n) for n in range(9)))
        clients = [LocalClient(hub, await hub.connect()) for _ in range(20)]
        for client in clients:
            await client.subscribe("websocket-json", "a", cursor=format_cursor(store.epoch, 5))
        for client in clients:
            await hub.until_subscribed(client.socket)
        await hub.until_idle()
        assert 1 <= store.asked < 20
        store.catch_up()
        for client in clients:
            assert (await client.until("message")).data == "5"
            client.socket.close()

    play(scenario)
