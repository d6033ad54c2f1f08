"""SQLite: at which start must the epoch be new? The rule that is built, ``why_new_epoch``, is what the model asks.

Two processes that append, are stopped and killed; a power cut, which leaves any state of the database since it was
synced last, and any mark since that was; a backup of the file, or of the directory, which is put back while no process
runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from pushcompat.store.sqlite.files import Place
from pushcompat.store.sqlite.start import FULL, State, why_new_epoch

from .explore import explore

KILLS = int(os.environ.get("PUSHCOMPAT_TEST_KILLS", "1"))  # and stops; with 2 there are ten times as many states

LOST = "acknowledged messages are gone, and the epoch stays"
TWICE = "a number is given twice in an epoch"
NEEDLESS = "a needless new epoch"

Judge = Callable[[State, str, str, Place | None], str | None]


class Database(NamedTuple):
    """``log``: the messages; a message's number is its place in there, from 1."""

    epoch: str
    log: tuple[int, ...]
    starts: int
    clean: bool
    boot: str

    @property
    def place(self) -> Place:
        return Place(self.epoch, len(self.log), self.starts)


class World(NamedTuple):
    databases: tuple[Database, ...]  # what a power cut may leave; the last one is what there is
    marks: tuple[Place, ...]  # likewise
    inode: str
    boot: int
    running: int  # processes
    committed: int  # a message that is in the log, and not answered; 0: none
    answered: tuple[tuple[str, int, int], ...] = ()  # epoch, number, message
    backup: tuple[Database, Place] | None = None
    messages: int = 0
    epochs: int = 1
    kills: int = 0
    cuts: int = 0
    restores: int = 0
    bad: str | None = None

    @property
    def database(self) -> Database:
        return self.databases[-1]


class Starting:
    def __init__(
        self,
        judge: Judge = why_new_epoch,
        synchronous: str = "NORMAL",
        mark: str = "before the answer",
        mark_is_synced: bool = True,
        clean_by: str = "the last",
        messages: int = 2,
        disasters: bool = True,
    ) -> None:
        self._judge = judge
        self._synchronous = synchronous
        self._mark = mark
        self._mark_is_synced = mark_is_synced
        self._clean_by = clean_by
        self._messages = messages
        self._disasters = disasters

    def initial(self) -> World:
        return World((Database("e1", (), 1, False, "0"),), (Place("e1", 0, 1),), "1", 0, 1, 0)

    def fault(self, world: World) -> str | None:
        return world.bad

    def is_complete(self, world: World) -> bool | None:
        return None

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        if world.running < 2:
            yield "a process starts", self._start(world)
        if world.running:
            yield from self._running(world)
        if self._disasters:
            yield from self._disaster(world)

    def _running(self, world: World) -> Iterator[tuple[str, World]]:
        database = world.database
        if world.committed:
            yield self._answer(world)
        else:
            if world.messages < self._messages:
                message = world.messages + 1
                appended = database._replace(log=(*database.log, message))
                yield (
                    f"m{message} is committed",
                    self._written(world, appended, self._synchronous == FULL)._replace(
                        committed=message, messages=message
                    ),
                )
            if len(world.databases) > 1:
                yield "a checkpoint syncs", world._replace(databases=world.databases[-1:])
            if world.kills < KILLS:
                yield "a process is stopped", self._stopped(world)
        if self._mark == "later" and world.marks[-1] != database.place:
            yield "the mark is written", world._replace(marks=(*world.marks, database.place))
        if world.kills < KILLS:
            yield "kill -9", world._replace(running=world.running - 1, committed=0, kills=world.kills + 1)

    def _answer(self, world: World) -> tuple[str, World]:
        epoch, number = world.database.epoch, len(world.database.log)
        bad = TWICE if any((e, n) == (epoch, number) for e, n, _ in world.answered) else None
        marks = (*world.marks, world.database.place) if self._mark == "before the answer" else world.marks
        answer = epoch, number, world.committed
        return f"it is answered: {epoch}-{number}", world._replace(
            committed=0, answered=(*world.answered, answer), marks=marks, bad=bad
        )

    def _stopped(self, world: World) -> World:
        after = world._replace(running=world.running - 1, kills=world.kills + 1)
        if world.running == 1 or self._clean_by == "anyone":
            return self._written(after, world.database._replace(clean=True), synced=True)
        return after

    def _written(self, world: World, database: Database, synced: bool) -> World:
        databases = (database,) if synced else (*world.databases, database)
        return world._replace(databases=tuple(dict.fromkeys(databases)))

    def _start(self, world: World) -> World:
        epoch, log, starts, clean, boot = world.database
        state = State(epoch, len(log), starts, boot, clean, self._synchronous, "1")
        renewed = self._judge(state, str(world.boot), world.inode, world.marks[-1])
        lost = any(
            e == epoch and (number > len(log) or log[number - 1] != message) for e, number, message in world.answered
        )
        harmless = world.cuts == world.restores == 0
        bad = LOST if lost and not renewed else NEEDLESS if renewed and harmless else None
        epochs = world.epochs + 1 if renewed else world.epochs
        epoch = f"e{epochs}" if renewed else epoch
        started = Database(epoch, log, starts + 1, False, str(world.boot))
        after = self._written(world, started, self._synchronous == FULL)
        marks = (started.place,) if self._mark_is_synced else (*world.marks, started.place)
        return after._replace(running=world.running + 1, epochs=epochs, marks=marks, inode="1", bad=bad)

    def _disaster(self, world: World) -> Iterator[tuple[str, World]]:
        if world.cuts < 1:
            for database in world.databases:
                for mark in world.marks:
                    left = f"a power cut: {len(database.log)} of {len(world.database.log)} messages are left"
                    yield (
                        left,
                        world._replace(
                            databases=(database,), marks=(mark,), boot=world.boot + 1, running=0, committed=0, cuts=1
                        ),
                    )
        if world.backup is None:
            yield "a backup is made", world._replace(backup=(world.database, world.marks[-1]))
        elif not world.running and world.restores < 1:
            database, mark = world.backup
            restored = world._replace(databases=(database,), restores=1)
            yield "the file is put back in place", restored
            yield "the directory is put back", restored._replace(marks=(mark,), inode="2")


def test_nothing_is_lost_in_silence_and_no_number_is_given_twice() -> None:
    explored = explore(Starting())
    assert explored.whole
    assert explored.states > 10_000
    assert explored.faults == {}


def test_kills_and_stops_alone_make_no_new_epoch() -> None:
    explored = explore(Starting(disasters=False, messages=3))
    assert explored.whole
    assert explored.faults == {}


def test_with_full_a_power_cut_makes_no_new_epoch() -> None:
    epochs: set[int] = set()

    class PowerCuts(Starting):
        def steps(self, world: World) -> Iterator[tuple[str, World]]:
            epochs.add(world.epochs)
            return (step for step in super().steps(world) if "backup" not in step[0])

    assert explore(PowerCuts(synchronous=FULL)).faults == {}
    assert epochs == {1}


def without_boot(state: State, boot: str, file: str, mark: Place | None) -> str | None:
    return why_new_epoch(state, state.boot, file, mark)


def without_mark(state: State, boot: str, file: str, mark: Place | None) -> str | None:
    return why_new_epoch(state, boot, file, Place(state.epoch, state.head, state.starts))


def without_starts(state: State, boot: str, file: str, mark: Place | None) -> str | None:
    return why_new_epoch(state, boot, file, mark and mark._replace(starts=state.starts))


def without_file(state: State, boot: str, file: str, mark: Place | None) -> str | None:
    return why_new_epoch(state, boot, state.file, mark)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Starting(without_boot), id="without the boot's id"),
        pytest.param(Starting(without_mark), id="without the mark"),
        pytest.param(Starting(without_starts), id="without the starts in the mark"),
        pytest.param(Starting(without_file), id="without the file's inode"),
        pytest.param(Starting(mark="later"), id="the mark is written later, once a second for example"),
        pytest.param(Starting(mark_is_synced=False), id="a start does not sync the mark"),
        pytest.param(Starting(clean_by="anyone"), id="a process that stops says clean though another runs"),
    ],
)
def test_without_any_part_of_the_rule_something_is_lost_in_silence(model: Starting) -> None:
    faults = explore(model, limit=30_000).faults
    assert LOST in faults or TWICE in faults
