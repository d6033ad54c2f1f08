"""Four processes on one server, whose connections are killed meanwhile: one order for all, nothing lost or twice."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ..harness import MS
from .engines import ENGINES, Engine, running
from .sharing import Sharer

MESSAGES = 700  # of each process, at least: groups are appended whole
NAMES = "abcd"


@pytest.mark.parametrize("kind", ENGINES)
def test_four_processes_see_one_log_though_their_connections_are_killed(tmp_path: Path, kind: str) -> None:
    total = len(NAMES) * MESSAGES
    with running(tmp_path / "engine", kind) as engine:
        sharers = [Sharer(engine.url(), tmp_path, name, MESSAGES, total) for name in NAMES]
        epochs = {sharer.wait_for_first() for sharer in sharers}
        ended = threading.Event()
        storm = threading.Thread(target=kill_connections, args=(engine, ended))
        storm.start()
        reports = [sharer.rest() for sharer in sharers]
        ended.set()
        storm.join()
    assert len(epochs) == 1
    logs = [[line for line in report if len(line) == 2] for report in reports]
    longest = max(logs, key=len)
    assert len(longest) >= total
    assert [sequence for sequence, _ in longest] == list(range(1, len(longest) + 1))
    assert all(log == longest[: len(log)] for log in logs)
    acknowledged = {line[1]: line[3] for report in reports for line in report if len(line) == 4}
    assert len(acknowledged) == sum(len(line) == 4 for report in reports for line in report)
    assert all(acknowledged[sequence] == text for sequence, text in longest)
    for name in NAMES:
        own = [text for _, text in longest if str(text).startswith(name)]
        assert own == [f"{name}:{number}" for number in range(len(own))]


def kill_connections(engine: Engine, ended: threading.Event) -> None:
    while not ended.wait(10 * MS):
        engine.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
