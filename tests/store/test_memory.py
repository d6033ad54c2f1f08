"""The memory store: the contract, and that its memory is bounded."""

from __future__ import annotations

import asyncio

import pytest

from pushcompat.limits import Retention
from pushcompat.message import ACCESS_LOG
from pushcompat.store.base import Publish, Store, weight
from pushcompat.store.memory import MemoryStore

from ..by_channel import ByChannel
from .contract import ALL, Clock, Contract, Follower, Open, append_group, draft
from .machine import SETTINGS, StoreMachine


class TestMemoryStore(Contract):
    @pytest.fixture
    def open_store(self) -> Open:
        async def opened(retention: Retention, clock: Clock) -> Store:
            return MemoryStore(retention, clock, clock)

        return opened

    async def trim_soon(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store._trim()

    async def trim(self, store: Store) -> None:
        await append_group(store, [Publish([draft("a", str(n)) for n in range(10_000)])])


class MemoryMachine(StoreMachine):
    async def open(self, retention: Retention, clock: Clock) -> Store:
        return MemoryStore(retention, clock, clock)


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = SETTINGS


def test_each_start_is_another_log() -> None:
    assert MemoryStore(ALL).epoch != MemoryStore(ALL).epoch


def test_the_memory_stores_list_is_within_the_byte_budget_and_an_eighth() -> None:
    async def scenario() -> None:
        store = MemoryStore(Retention(bytes=100_000))
        for _ in range(200):
            await append_group(store, [Publish([draft("a", "x" * 1000)])])
            assert sum(map(weight, store._log)) == store._bytes <= 112_500
        assert sum(map(weight, (await store.retained()).messages)) <= 100_000

    asyncio.run(scenario())


def test_repeats_of_one_key_are_counted_once() -> None:
    async def scenario() -> None:
        store = MemoryStore(Retention(count=3))
        await append_group(store, [Publish([draft("a", "1"), draft("a", "2")])])
        await append_group(store, [Publish([draft("a", str(n), key="k") for n in range(10_000)])])
        retained = await store.retained()
        assert [m.data for m in retained.messages] == [b"1", b"2", b"9999"]
        assert (retained.floor, retained.floors) == (0, {})

    asyncio.run(scenario())


def test_messages_that_need_not_be_retained_are_freed() -> None:
    """A follower's own place is what is held for it."""

    async def scenario() -> None:
        store = MemoryStore(Retention(count=10))
        follower = Follower(store)
        most = 0
        for _ in range(100):
            await append_group(store, [Publish([draft("a") for _ in range(1000)])])
            await follower.batch()
            most = max(most, len(store._log))
        assert most < 10_000
        await follower.aclose()
        await append_group(store, [Publish([draft("a") for _ in range(5000)])])
        assert len(store._log) == 10

    asyncio.run(scenario())


def test_entries_of_the_access_log_that_are_over_use_no_memory_for_long() -> None:
    async def scenario() -> None:
        clock = Clock()
        store = MemoryStore(Retention(), clock, clock)
        for number in range(10_000):
            clock.now += 1
            await append_group(store, [Publish([draft(ACCESS_LOG, key=f"revoke:{number}", ttl_s=60.0)])])
        await append_group(store, [Publish([draft(ACCESS_LOG, key="key:a") for _ in range(100)])])
        assert len(store._access) < 2048
        assert len((await store.retained()).messages) == 61
        assert store._log == []

    asyncio.run(scenario())


def test_a_channel_with_more_messages_by_its_rule_is_not_trimmed_to_the_number_of_others() -> None:
    async def scenario() -> None:
        store = Counting(Retention(count=1, by_channel=ByChannel({"tokens": (5000, None)})))
        await append_group(store, [Publish([draft("tokens") for _ in range(6000)])])
        await append_group(store, [Publish([draft("busy") for _ in range(20_000)])])
        assert store.trims == 1
        assert len([message for message in store._log if message.channel == "tokens"]) == 5000

    asyncio.run(scenario())


class Counting(MemoryStore):
    trims = 0

    def _trim(self) -> None:
        self.trims += 1
        super()._trim()


@pytest.mark.parametrize(
    ("retention", "size", "most"),
    [
        pytest.param(Retention(count=1), 1, 12, id="beyond the count"),
        pytest.param(Retention(count=10_000, bytes=1_256_000), 1000, 250, id="beyond the bytes"),
    ],
)
def test_a_trim_removes_a_fraction_of_the_log_so_that_the_cost_per_message_is_constant(
    retention: Retention, size: int, most: int
) -> None:
    async def scenario() -> None:
        store = Counting(retention)
        for _ in range(25_000):
            store.append([Publish([draft("a", "x" * size)])], lambda outcomes: None)
        assert 0 < store.trims <= most

    asyncio.run(scenario())


def test_messages_beyond_the_count_are_trimmed_when_they_are_half_of_the_list() -> None:
    async def scenario() -> None:
        store = Counting(Retention(count=1))
        for number in range(20_000):
            store.append([Publish([draft(f"c{number}")])], lambda outcomes: None)
        for _ in range(25_000):
            store.append([Publish([draft("busy")])], lambda outcomes: None)
        assert store.trims == 1
        assert len(store._log) < 22_000

    asyncio.run(scenario())


def test_channels_of_which_nothing_is_held_are_not_counted() -> None:
    async def scenario() -> None:
        store = MemoryStore(Retention(bytes=100_000))
        for number in range(5000):
            store.append([Publish([draft(f"c{number}", "x" * 1000)])], lambda outcomes: None)
        assert len(store._counts) == len(store._log) < 100

    asyncio.run(scenario())
