"""A rolling restart that nobody notices. (``python -m tests.rolling`` is the same with 5,000 subscribers.)"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..rolling import roll


def test_a_rolling_restart_loses_repeats_refuses_and_resets_nothing(tmp_path: Path) -> None:
    wrong, summary = asyncio.run(roll(tmp_path, subscribers=300))
    assert wrong == [], summary
