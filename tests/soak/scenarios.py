"""What is run: each store, with as many processes as it is for."""

from __future__ import annotations

from functools import partial

from ..store.engines import installed
from .redis import Redis, WithSentinel
from .world import Scenario

_VALKEY = installed("valkey") is not None

SCENARIOS = [
    Scenario("memory", ["--store", "memory:"], loses=True),
    Scenario("SQLite", ["--store", "sqlite:log.sqlite"]),
    Scenario("SQLite, two workers", ["--store", "sqlite:log.sqlite"], workers=2),
    Scenario("Redis, three nodes", nodes=3, engine=Redis, loses=True),
    Scenario(
        f"{'Valkey' if _VALKEY else 'Redis'} with Sentinel, three nodes",
        nodes=3,
        engine=partial(WithSentinel, "valkey" if _VALKEY else "redis"),
        loses=True,
    ),
]
