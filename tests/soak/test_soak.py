"""A short soak of the stores that need no other server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .scenarios import SCENARIOS
from .world import Scenario, World


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.engine is None], ids=lambda scenario: scenario.name)
def test_nothing_is_lost_or_repeated_whatever_is_killed(tmp_path: Path, scenario: Scenario) -> None:
    outcome = asyncio.run(World(scenario, tmp_path, subscribers=20, publishers=3, rate=60).run(6))
    assert outcome.passed, (outcome.verdict, outcome.problems)
    assert outcome.verdict.delivered > outcome.verdict.published > 0
