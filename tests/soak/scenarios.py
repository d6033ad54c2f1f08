"""What is run: each store, with as many processes as it is for."""

from __future__ import annotations

from .world import Scenario

SCENARIOS = [
    Scenario("memory", ["--store", "memory:"], loses=True),
]
