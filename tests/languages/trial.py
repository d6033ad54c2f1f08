"""Runs a program through a situation, and compares what it printed with what was published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .programs import Program
from .situations import SITUATIONS, Situation
from .stage import REFETCH, staged

AT_ONCE = 16  # they mostly wait
START_S = 60
PATIENCE_S = 75  # a read timeout of 40 s, and a backoff of 30


@dataclass(frozen=True)
class Cell:
    program: Program
    situation: Situation

    def __str__(self) -> str:
        return f"{self.program} | {self.situation}"


def cells_of(programs: Iterable[Program]) -> list[Cell]:
    return [Cell(program, situation) for situation in SITUATIONS for program in programs]


async def run_all(cells: Iterable[Cell], tell: Callable[[Cell, list[str]], None]) -> None:
    running = asyncio.Semaphore(AT_ONCE)

    async def run_one(cell: Cell) -> None:
        async with running:
            tell(cell, await run(cell))

    async with asyncio.TaskGroup() as tasks:
        for cell in cells:
            tasks.create_task(run_one(cell))


async def run(cell: Cell) -> list[str]:
    """What is wrong, in sentences."""
    try:
        async with staged(cell.program, cell.situation.options, cell.situation.token_s) as stage:
            await stage.until_received(1, START_S)
            await cell.situation.play(stage)
            await stage.until_received(stage.number, PATIENCE_S)
            await stage.pause()
            await stage.until_received(stage.number, PATIENCE_S)
            await asyncio.sleep(1)  # for what should not come
            return complaints(stage.received, stage.number, history_lost=cell.situation.history_lost)
    except Exception as error:  # of one cell, that must not end the others
        return [str(error) or repr(error)]


def complaints(received: list[object], last: int, *, history_lost: bool) -> list[str]:
    """Each number once and in order, from the first one to ``last``; less only where REFETCH stands for it."""
    numbers = [item for item in received if item == REFETCH or isinstance(item, int)]
    found = []
    before: object = None
    for item in numbers:
        if isinstance(item, int) and isinstance(before, int) and item != before + 1:
            found.append(f"{item} came after {before}")
        before = item
    if not numbers or numbers[-1] != last:
        found.append(f"the last was {numbers[-1:]}, not {last}")
    if (REFETCH in numbers) != history_lost:
        found.append("it was told to refetch for nothing" if REFETCH in numbers else "it was not told to refetch")
    return found
