"""The memory store: the contract, and that its memory is bounded."""

from __future__ import annotations

import asyncio

import pytest

from pushcompat.limits import Retention
from pushcompat.store.base import Publish, Store
from pushcompat.store.memory import MemoryStore

from .contract import ALL, Clock, Contract, Follower, Open, draft


class TestMemoryStore(Contract):
    @pytest.fixture
    def open_store(self) -> Open:
        async def opened(retention: Retention, clock: Clock) -> Store:
            return MemoryStore(retention, clock, clock)

        return opened

    async def trim(self, store: Store) -> None:
        await store.append([Publish([draft("a", str(n)) for n in range(10_000)])])


def test_each_start_is_another_log() -> None:
    assert MemoryStore(ALL).epoch != MemoryStore(ALL).epoch


def test_what_nobody_has_to_be_given_any_more_is_not_held() -> None:
    """A follower's own place is what is held for it."""

    async def scenario() -> None:
        store = MemoryStore(Retention(count=10))
        follower = Follower(store)
        most = 0
        for _ in range(100):
            await store.append([Publish([draft("a") for _ in range(1000)])])
            await follower.batch()
            most = max(most, len(store._log))
        assert most < 10_000
        await follower.aclose()
        await store.append([Publish([draft("a") for _ in range(5000)])])
        assert len(store._log) == 10

    asyncio.run(scenario())
