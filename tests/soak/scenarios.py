"""What is run: each store, with as many processes as it is for."""

from __future__ import annotations

from .redis import Redis, WithSentinel
from .world import Scenario

SCENARIOS = [
    Scenario("memory", ["--store", "memory:"], loses=True),
    Scenario("SQLite", ["--store", "sqlite:log.sqlite"]),
    Scenario("SQLite, two workers", ["--store", "sqlite:log.sqlite"], workers=2),
    Scenario("Redis, three nodes", nodes=3, engine=Redis, loses=True),
    Scenario("Redis with Sentinel, three nodes", nodes=3, engine=WithSentinel, loses=True),
]
