"""A short siege: a twentieth of the time, and a twentieth of the clients, of ``make siege``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from .kinds import KINDS, TLS_KINDS, Kind
from .world import World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have 127.0.0.1 only")


@pytest.mark.parametrize(("tls", "kinds"), [(False, KINDS), (True, TLS_KINDS)])
def test_hostile_clients_of_every_kind_lose_no_good_subscriber(
    tmp_path: Path, tls: bool, kinds: dict[str, Kind]
) -> None:
    outcome = asyncio.run(World(tmp_path, good=60, hostile=600, seconds=4, pause_s=1, tls=tls).run())
    assert outcome.passed, outcome.problems
    assert outcome.calm["delivered"] > 0
    assert set(outcome.done) == set(kinds)
    assert 0 < outcome.memory_bytes < outcome.bound_bytes
