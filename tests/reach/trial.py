"""Runs one cell of the matrix, and compares the page's reports with the published updates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from .cells import Cell
from .stage import INTERVAL_S, Stage, staged
from .verdict import complaints

AT_ONCE = 8  # cells mostly wait
STARTING = 2  # but a browser's start does not, and would falsify the times of others
START_S = 60  # for a browser on a busy machine
SETTLE_S = 1  # for what it still does when the page is there already
FIRST_S = 6  # the budget: from subscribing to the first update
DELAY_S = 2  # of an update when all is well; a connection that was cut is back in half a second
PATIENCE_S = 45  # after the play: backoff goes up to 30 s, a poll's watchdog to 35
LAST = 8  # updates that are watched for delays when the play is over


@dataclass(frozen=True)
class Result:
    complaints: list[str]
    transports: list[str]  # one after the other
    first_s: float | None  # from subscribing to the first update


async def run_all(cells: Iterable[Cell], tell: Callable[[Cell, Result], None]) -> None:
    running, starting = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(STARTING)

    async def run_one(cell: Cell) -> None:
        async with running:
            tell(cell, await run(cell, starting))

    async with asyncio.TaskGroup() as tasks:
        for cell in cells:
            tasks.create_task(run_one(cell))


async def run(cell: Cell, starting: asyncio.Semaphore) -> Result:
    async with AsyncExitStack() as stack:
        try:
            async with starting:
                stage = await stack.enter_async_context(staged(cell))
                publishing = asyncio.create_task(stage.publish(cell.network.pause_s))
                stack.callback(publishing.cancel)
                await stage.lab.until(lambda: bool(stage.lab.seen("subscribe")), START_S)
                await stage.lab.until(lambda: bool(stage.lab.seen("message")), SETTLE_S)
            begun = await stage.lab.until(lambda: bool(stage.lab.seen("message")), START_S)
            assert begun, f"no update ever came: {stage.browser.output()}"
            found = await _play(cell, stage)
            publishing.cancel()
            found += await _compare(cell, stage)
        except Exception as error:  # of one cell, that must not end the others
            return Result([str(error) or repr(error)], [], None)
        return Result(found, stage.transports(), stage.first_s())


async def _play(cell: Cell, stage: Stage) -> list[str]:
    """Updates that were late although the network interrupted nothing."""
    network, lab = cell.network, stage.lab
    calm = stage.last_seen()
    await network.play(stage)
    goal = stage.number
    assert stage.last_seen() < goal - LAST or not network.interrupts, "the play has interrupted nothing"
    assert await lab.until(
        lambda: stage.last_seen() >= goal and stage.transports()[-1] == cell.transport, PATIENCE_S
    ), f"{PATIENCE_S} s after the play: at {stage.last_seen()} of {goal}, on {stage.transports()[-1]}"
    if network.interrupts or network.stops_server or network.history_lost:
        calm = stage.number
    goal = stage.number + LAST
    await lab.until(lambda: stage.last_seen() >= goal, LAST * INTERVAL_S + network.pause_s + DELAY_S)
    return [
        f"{report.value} came {late:.1f} s late"
        for report in lab.seen("message")
        if report.value > calm
        and (late := report.arrived - stage.published.get(report.value, report.arrived)) > DELAY_S
    ]


async def _compare(cell: Cell, stage: Stage) -> list[str]:
    """Compares the reports of the page, as loaded last, with the published updates."""
    lab, last = stage.lab, max(stage.published)
    await lab.until(lambda: stage.last_seen() >= last, DELAY_S)
    pages = list(dict.fromkeys(report.page for report in lab.reports))
    reports = [report for report in lab.reports if report.page == pages[-1]]
    opened = next(report.arrived for report in reports if report.what == "state" and report.value["state"] == "open")
    expected = {number for number, sent in stage.published.items() if sent > opened}
    seen = [report.value for report in reports if report.what in ("message", "reset")]
    found = complaints(seen, expected, history_lost=cell.network.history_lost) + stage.server.complaints()
    if len(pages) != (2 if cell.network.returns and not cell.browser.keeps else 1):
        found.append(f"the page was loaded {len(pages)} times")
    if stage.first_s() > FIRST_S:
        found.append(f"the first update came after {stage.first_s()} s")
    return found
