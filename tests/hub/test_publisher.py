from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pushcompat.errors import KeyReused, Unavailable
from pushcompat.limits import Limits, Retention
from pushcompat.message import Message
from pushcompat.store.base import Idempotency, Receipt
from pushcompat.store.memory import MemoryStore

from ..harness import PATIENCE_S
from ..inprocess import LocalHub, running_hub
from .slow_store import SlowStore
from .stage import LocalClient


def run(
    scenario: Callable[[LocalHub], Awaitable[None]], store: MemoryStore | None = None, limits: Limits | None = None
) -> None:
    async def play() -> None:
        async with running_hub(store or MemoryStore(Retention()), limits or Limits()) as hub:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(hub)

    asyncio.run(play())


def test_the_server_publishes_by_itself_and_has_read_its_own_messages() -> None:
    async def scenario(hub: LocalHub) -> None:
        receipt = await hub.publish([Message("a", b"1"), Message("b", b"2")])
        assert receipt == Receipt(hub.history.epoch, 2, {"a": 0, "b": 0})
        assert hub.history.head == 2

    run(scenario)


def test_what_the_server_publishes_is_delivered_and_its_subscribers_are_counted() -> None:
    async def scenario(hub: LocalHub) -> None:
        sock = await hub.connect()
        client = LocalClient(hub, sock)
        await client.subscribe("eventsource-json", "a")
        await hub.until_subscribed(sock)
        receipt = await hub.publish([Message("a", b"1")])
        assert receipt.subscribers == {"a": 1}
        assert (await client.until("message")).data == "1"
        sock.close()

    run(scenario)


def test_a_repeat_with_the_same_key_gets_the_first_receipt_and_with_another_body_is_refused() -> None:
    async def scenario(hub: LocalHub) -> None:
        key = Idempotency("hook", "k", b"digest")
        first = await hub.publish([Message("a", b"1")], key)
        again = await hub.publish([Message("a", b"1")], key)
        assert (again.sequence, again.repeated) == (first.sequence, True)
        with pytest.raises(KeyReused):
            await hub.publish([Message("a", b"2")], Idempotency("hook", "k", b"other"))
        assert hub.history.head == 1

    run(scenario)


def test_what_the_server_publishes_waits_for_a_log_that_is_busy_and_goes_in_the_next_group() -> None:
    store = SlowStore()

    async def scenario(hub: LocalHub) -> None:
        publishing = [asyncio.create_task(hub.publish([Message("a", b"%d" % number)])) for number in range(3)]
        while not store.groups:
            await asyncio.sleep(0)
        late = asyncio.create_task(hub.publish([Message("a", b"3")]))
        await hub.until_idle()
        assert [len(publishes) for publishes, _ in store.groups] == [3]
        store.store()
        assert [(await task).sequence for task in publishing] == [1, 2, 3]
        while not store.groups:
            await asyncio.sleep(0)
        store.store()
        assert (await late).sequence == 4

    run(scenario, store)


def test_a_log_that_does_not_answer_in_time_refuses_what_the_server_publishes() -> None:
    store = SlowStore()

    async def scenario(hub: LocalHub) -> None:
        sent = asyncio.create_task(hub.publish([Message("a", b"1")]))
        while not store.groups:
            await asyncio.sleep(0)
        queued = asyncio.create_task(hub.publish([Message("a", b"2")]))
        with pytest.raises(Unavailable, match="not known whether this publish was stored"):
            await sent
        with pytest.raises(Unavailable, match="nothing was published"):
            await queued
        store.store()
        await hub.until_idle()
        assert not store.groups
        assert hub.history.head == 1

    run(scenario, store, Limits(publish_s=1))


def test_what_the_server_publishes_waits_until_an_overloaded_channel_was_delivered() -> None:
    async def scenario(hub: LocalHub) -> None:
        channel = hub.history.channel("a")
        for _ in range(4):
            await hub.publish([Message("a", b"x")])
        channel.begin_pass(0.0)  # which the test ends
        for _ in range(2):
            await hub.publish([Message("a", b"x")])
        waiting = asyncio.create_task(hub.publish([Message("a", b"late")]))
        await hub.until_idle()
        assert not waiting.done()
        assert hub.metrics.publish_throttled == 1
        channel.to_visit = None
        hub.fanout._passes.append(channel)
        hub._context.schedule_turn()
        assert (await waiting).sequence == 7

    run(scenario, limits=Limits(retention=Retention(count=2)))


def test_a_publish_that_nobody_waits_for_any_more_is_stored_all_the_same() -> None:
    store = SlowStore()

    async def scenario(hub: LocalHub) -> None:
        publishing = asyncio.create_task(hub.publish([Message("a", b"1")]))
        while not store.groups:
            await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        store.store()
        await hub.until_quiet(1)

    run(scenario, store)
