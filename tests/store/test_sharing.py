"""Several processes on one log, some of which are killed: one order for all, nothing lost, no number given twice."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from pathlib import Path

from pushcompat.message import format_cursor
from pushcompat.store.base import Retained
from pushcompat.store.sqlite import SqliteStore

from ..harness import MS
from .sharing import KEEPING_FEW, Acknowledged, Sharer

PROCESSES = 4
MESSAGES = 500  # of each, at least: groups are appended whole
KILLS = 32


def test_four_processes_that_append_at_once_all_see_one_log(tmp_path: Path) -> None:
    total = PROCESSES * MESSAGES
    sharers = [Sharer("sqlite:", tmp_path, name, MESSAGES, total) for name in "abcd"]
    reports = [sharer.rest() for sharer in sharers]
    assert [sharer.process.returncode for sharer in sharers] == [0] * PROCESSES
    assert len({report[0] for report in reports if isinstance(report[0], str)}) == 1
    logs = [[tuple(line) for line in report if len(line) == 2] for report in reports]
    longest = max(logs, key=len)
    assert len(longest) >= total
    assert [sequence for sequence, _ in longest] == list(range(1, len(longest) + 1))
    for log, report in zip(logs, reports, strict=True):
        assert log == longest[: len(log)]
        for line in report:
            if len(line) == 4 and line[1] <= len(longest):
                assert longest[line[1] - 1] == (line[1], line[3])
    for name in "abcd":
        mine = [text for _, text in longest if text.startswith(name)]
        assert mine == [f"{name}:{number}" for number in range(len(mine))]


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged_and_gives_no_number_twice(tmp_path: Path) -> None:
    acknowledged: list[Acknowledged] = []
    running: list[Sharer] = []
    for number in range(KILLS + PROCESSES):
        if len(running) >= PROCESSES or number >= KILLS:
            victim = running.pop(0)
            victim.process.send_signal(signal.SIGKILL)
            acknowledged += [Acknowledged(*line) for line in victim.rest() if len(line) == 4]  # type: ignore[arg-type]
        if number < KILLS:
            running.append(Sharer("sqlite:", tmp_path, str(number)))
            running[-1].wait_for_first()
            threading.Event().wait(random.uniform(0, 100 * MS))
    retained = asyncio.run(retained_in(tmp_path / "log.sqlite"))
    assert len(acknowledged) > 100 * KILLS
    assert {one.epoch for one in acknowledged} == {retained.epoch}
    by_number = {one.sequence: one for one in acknowledged}
    assert len(by_number) == len(acknowledged)
    assert max(by_number) <= retained.head
    kept = {message.sequence: message for message in retained.messages}
    for one in acknowledged:
        message = kept.get(one.sequence)
        if message is None:
            assert one.sequence <= retained.floors[one.channel], one
        else:
            assert (message.channel, message.data.decode()) == (one.channel, one.data)


async def retained_in(path: Path) -> Retained:
    store = SqliteStore(path, KEEPING_FEW)
    await store.open()
    retained = await store.retained()
    assert await store.head() == (retained.epoch, retained.head)
    await store.close()
    assert path.with_name("log.sqlite.mark").read_text().startswith(format_cursor(retained.epoch, retained.head))
    return retained
