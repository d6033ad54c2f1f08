"""The store on Redis and Valkey: the contract, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

pytest.importorskip("redis")

from pushcompat.limits import Retention
from pushcompat.store.base import Store
from pushcompat.store.redis.store import RedisStore

from .contract import Clock, Contract, Open, append, draft
from .engines import ENGINES, Engine, running

PREFIXES = map("test{}".format, count())


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One server for all tests that leave it as it is; use a prefix of your own."""
    with running(tmp_path_factory.mktemp("engine"), request.param) as server:
        yield server


class TestRedisStore(Contract):
    @pytest.fixture
    def open_store(self, engine: Engine) -> Open:
        async def opened(retention: Retention, clock: Clock) -> Store:
            store = RedisStore(engine.url(next(PREFIXES)), retention, clock, clock)
            await store.open()
            return store

        return opened

    async def trim(self, store: Store) -> None:
        assert isinstance(store, RedisStore)
        for number in range(3):
            await append(store, draft("a", str(number)), draft("a"))
        assert await store.trim(tail=0) == ""
