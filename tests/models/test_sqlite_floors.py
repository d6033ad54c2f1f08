"""SQLite, shared by two processes: what must a follower read, and a trim write, so that no client misses a message?

Messages in channels a and b; a trimmer that takes the oldest beyond a channel's count, or beyond all budgets, whoever
has read it; processes that are killed and load anew; a client of channel a that goes from one process to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from .explore import Explored, explore

HOLE = "the client is sent on past a message that it was not told is gone"
NEEDLESS = "a needless reset"
CHANNELS = "ab"
A = 0


class Process(NamedTuple):
    """``place``: up to where it has read. ``window``: what it has, for its clients."""

    alive: bool = True
    place: int = 0
    window: tuple[tuple[int, int], ...] = ()
    floors: tuple[int, int] = (0, 0)
    loading: tuple[int, int] | None = None  # floors, read in a transaction of their own


class World(NamedTuple):
    rows: tuple[tuple[int, int], ...] = ()  # number, channel
    published: tuple[int, ...] = ()  # their channels
    floors: tuple[int, int] = (0, 0)
    floor: int = 0  # the global one
    evicted: int = 0
    unwritten: tuple[int, int] | None = None  # a deleted message whose floor is still to be written
    processes: tuple[Process, Process] = (Process(), Process())
    at: int = -1  # the process that the client is connected to
    cursor: int = 0
    kills: int = 0
    bad: str | None = None


class Following:
    """``check``: what a follower's place is compared with. ``load``: floors and rows in one transaction, or in two.
    ``floor``: in the transaction that deletes, or in the next. ``counts``: messages of each channel; two trimmers may
    have different rules, so a channel has also been trimmed to fewer. ``budget``: messages of all channels;
    ``budget_floor``: which floor rises when it is exceeded.
    """

    def __init__(
        self,
        check: str = "evicted",
        load: str = "one",
        floor: str = "with",
        counts: tuple[int, int] = (1, 1),
        budget: int = 9,
        budget_floor: str = "channel",
        messages: int = 3,
    ) -> None:
        self._check = check
        self._load = load
        self._floor = floor
        self._counts = counts
        self._budget = budget
        self._budget_floor = budget_floor
        self._messages = messages

    def initial(self) -> World:
        return World()

    def fault(self, world: World) -> str | None:
        return world.bad

    def is_complete(self, world: World) -> bool | None:
        return None

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        number = len(world.published) + 1
        if number <= self._messages:
            for channel, name in enumerate(CHANNELS):
                yield (
                    f"publish {name}{number}",
                    world._replace(rows=(*world.rows, (number, channel)), published=(*world.published, channel)),
                )
        yield from self._trims(world)
        for index, process in enumerate(world.processes):
            yield from self._process(world, index, process)
        yield from self._client(world)

    # The trimmer

    def _trims(self, world: World) -> Iterator[tuple[str, World]]:
        if world.unwritten is not None:
            yield "the trimmer writes the floor", self._raised(world, *world.unwritten, world.floor)
            return
        for channel, name in enumerate(CHANNELS):
            rows = [row for row in world.rows if row[1] == channel]
            if len(rows) > self._counts[channel]:
                yield f"the trimmer takes {name}{rows[0][0]}, beyond the count", self._taken(world, rows[0])
        if len(world.rows) > self._budget:
            number, channel = world.rows[0]
            taken = self._taken(world, world.rows[0])
            if self._budget_floor == "global":
                taken = taken._replace(floors=world.floors, floor=number)
            yield f"the trimmer takes {CHANNELS[channel]}{number}, beyond the budget", taken

    def _taken(self, world: World, row: tuple[int, int]) -> World:
        after = world._replace(rows=tuple(other for other in world.rows if other != row))
        if self._floor == "with":
            return self._raised(after, *row, world.floor)
        return after._replace(unwritten=row)

    def _raised(self, world: World, number: int, channel: int, floor: int) -> World:
        floors = tuple(number if channel == other else old for other, old in enumerate(world.floors))
        return world._replace(
            floors=floors,
            floor=floor,
            evicted=max(world.evicted, number),
            unwritten=None,  # type: ignore[arg-type]
        )

    # A process

    def _process(self, world: World, index: int, process: Process) -> Iterator[tuple[str, World]]:
        name, head = f"process {index}", len(world.published)
        if not process.alive:
            if self._load == "one":
                yield f"{name} loads", self._with(world, index, self._loaded(world, world.floors))
            elif process.loading is None:
                yield f"{name} reads floors", self._with(world, index, process._replace(loading=world.floors))
            else:
                yield f"{name} reads messages", self._with(world, index, self._loaded(world, process.loading))
            return
        if world.kills < 1:
            killed = self._with(world, index, Process(alive=False))._replace(kills=1)
            yield f"{name} is killed", killed._replace(at=-1 if world.at == index else world.at)
        if process.place < head:
            limit = world.evicted if self._check == "evicted" else world.floor
            if process.place < limit:
                yield f"{name} loads anew", self._with(world, index, self._loaded(world, world.floors))
            else:
                news = tuple(row for row in world.rows if row[0] > process.place)
                read = process._replace(place=head, window=process.window + news)
                yield f"{name} reads {len(news)} messages", self._with(world, index, read)

    def _loaded(self, world: World, floors: tuple[int, int]) -> Process:
        a, b = (max(world.floor, floor) for floor in floors)
        return Process(place=len(world.published), window=world.rows, floors=(a, b))

    def _with(self, world: World, index: int, process: Process) -> World:
        one, other = world.processes
        return world._replace(processes=(process, other) if index == 0 else (one, process))

    # The client

    def _client(self, world: World) -> Iterator[tuple[str, World]]:
        for index, process in enumerate(world.processes):
            if process.alive and world.at != index:
                yield f"the client comes to process {index}", world._replace(at=index)
        if world.at < 0 or not world.processes[world.at].alive:
            return
        process = world.processes[world.at]
        missed = [number for number, channel in enumerate(world.published, 1) if channel == A and number > world.cursor]
        if process.floors[A] > world.cursor:
            lost = any(number <= process.floors[A] for number in missed)
            yield "the client is told reset", world._replace(cursor=process.place, bad=None if lost else NEEDLESS)
            return
        mine = [number for number, channel in process.window if channel == A and number > world.cursor]
        if mine:
            bad = HOLE if any(number < mine[0] for number in missed) else None
            yield f"the client is sent a{mine[0]}", world._replace(cursor=mine[0], bad=bad)
        elif process.place > world.cursor:
            bad = HOLE if any(number <= process.place for number in missed) else None
            yield f"the client is pinged to {process.place}", world._replace(cursor=process.place, bad=bad)


def explored(model: Following) -> Explored[World]:
    found = explore(model)
    assert found.whole
    return found


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Following(), id="count"),
        pytest.param(Following(counts=(2, 1)), id="count by channel"),
        pytest.param(Following(counts=(9, 9), budget=1), id="budget"),
        pytest.param(Following(counts=(1, 1), budget=2), id="both"),
    ],
)
def test_no_message_is_missed_in_silence_and_no_reset_is_needless(model: Following) -> None:
    assert explored(model).faults == {}


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        pytest.param(Following(check="floor"), HOLE, id="a place is compared with the global floor"),
        pytest.param(Following(load="two"), HOLE, id="floors and messages are read in two transactions"),
        pytest.param(Following(floor="after"), HOLE, id="messages are deleted before their floors are written"),
        pytest.param(
            Following(counts=(9, 9), budget=1, budget_floor="global"), NEEDLESS, id="the budget raises the global floor"
        ),
    ],
)
def test_plausible_alternatives_fail(model: Following, fault: str) -> None:
    assert fault in explored(model).faults


def test_the_shortest_way_to_the_hole_under_a_global_floor() -> None:
    """tests/store/test_sqlite.py does the same to the real store."""
    assert explored(Following(check="floor")).faults[HOLE] == [
        "publish a1", "publish a2", "the trimmer takes a1, beyond the count", "process 0 reads 1 messages",
        "the client comes to process 0", "the client is sent a2",
    ]  # fmt: skip
