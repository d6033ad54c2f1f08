"""What a trim of the SQLite log deletes, and when."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from pushcompat.limits import Retention
from pushcompat.message import ACCESS_LOG
from pushcompat.store.base import MOST_FLOORS, Idempotency, Lost, Publish, retain, weight
from pushcompat.store.sqlite import SqliteStore
from pushcompat.store.sqlite.trimmer import trim

from .contract import Clock, Follower, append, append_group, draft, fill, shown
from .test_sqlite import opened, play, trimmed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT sequence FROM message ORDER BY sequence")]


def value(path: Path, name: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        number: int = connection.execute(f"SELECT {name} FROM log").fetchone()[0]
        return number


async def publish_all(store: SqliteStore, channels: Sequence[str]) -> None:
    await append_group(store, [Publish([draft(channel) for channel in channels])])


def test_a_trim_keeps_what_the_rule_of_all_stores_keeps(path: Path, clock: Clock) -> None:
    retention = Retention(count=3, bytes=8 * weight(draft("a")))

    async def work() -> None:
        async with opened(path, retention, clock) as store:
            for number in range(40):
                await append(store, draft("abcd"[number % 4], key="k" if number % 5 == 0 else None))
            before = await store.retained()
            clock.now += 60
            assert await trimmed(store) == 40 - len(before.messages)
            after = await store.retained()
            assert rows(path) == [message.sequence for message in before.messages]
            assert (shown(after.messages), after.floors, after.floor) == (shown(before.messages), before.floors, 0)
            assert value(path, "evicted") == max(before.floors.values())

    play(work())


def test_young_messages_stay_unless_the_log_is_full(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=1), clock) as store:
            await fill(store, "a", "1", "2")
            clock.now += 8
            await fill(store, "a", "3", "4")
            clock.now += 3
            assert await trimmed(store) == 1
            assert rows(path) == [2, 3, 4]
            assert await trimmed(store, urgent=True) == 2
            assert rows(path) == [4]

    play(work())


def test_at_twice_the_byte_budget_what_is_young_goes_too(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=1, bytes=64 * 1024), clock) as store:
            store._trimming = True  # not by itself
            await fill(store, "a", *["x" * 10_000] * 15)
            assert await trimmed(store) == 14

    play(work())


def test_a_log_that_is_published_to_is_trimmed_by_itself(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=10, bytes=64 * 1024), clock) as store:
            for _ in range(60):
                clock.now += 1
                await append_group(store, [Publish([draft("a", "x" * 1000)]) for _ in range(10)])
                await store._trims.do(lambda: None)
            assert len(rows(path)) < 300

    play(work())


def test_a_follower_that_stood_still_while_its_channel_was_trimmed_loads_anew(path: Path, clock: Clock) -> None:
    """The global floor says nothing of it (tests/models/test_sqlite_floors.py has the way to the hole)."""

    async def work() -> None:
        async with opened(path, Retention(count=1), clock) as writes, opened(path, Retention(count=1), clock) as reads:
            await fill(writes, "a", "1", "2")
            clock.now += 60
            assert await trimmed(writes) == 1
            assert value(path, "floor") == 0
            late = Follower(reads, 0)
            with pytest.raises(Lost):
                await late.batch()
            retained = await reads.retained()
            assert (shown(retained.messages), retained.floors) == (["a:2"], {"a": 1})

    play(work())


def test_a_load_reads_floors_and_messages_of_one_moment(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trim comes between the two reads of a load."""

    async def work() -> None:
        async with opened(path, Retention(count=1), clock) as store:
            await fill(store, "a", "1", "2")
            clock.now += 60
            connection = store._connection
            store._connection = _Interrupted(connection, store)  # type: ignore[assignment]
            retained = await store.retained()
            assert rows(path) == [2], "the trim was made"
            assert (shown(retained.messages), retained.floors) == (["a:2"], {"a": 1})

    play(work())


class _Interrupted:
    """A connection: before its messages are read, somebody else trims."""

    def __init__(self, connection: sqlite3.Connection, store: SqliteStore) -> None:
        self._connection = connection
        self._store = store
        self.read: list[int] = []

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if "FROM message ORDER BY" in statement:
            assert trim(self._store._files, self._store._retention, self._store._clocks[0], urgent=False) == 1
        return self._connection.execute(statement, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


def test_floors_that_are_too_many_fold_into_the_global_one_the_lowest_first(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=1), clock) as store:
            store._trimming = True
            names = [f"c{number}" for number in range(MOST_FLOORS + 5)]
            await publish_all(store, names)
            await publish_all(store, names)
            clock.now += 60
            assert await trimmed(store) == len(names)
            retained = await store.retained()
            assert (retained.floor, len(retained.floors)) == (5, MOST_FLOORS)
            assert value(path, "floor") == 5

    play(work())


def test_receipts_go_when_nobody_will_ask_for_them_any_more(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(idempotency_s=60.0, idempotency_bytes=3 * 768), clock) as store:
            for number in range(10):
                await append_group(store, [Publish([draft("a")], {}, Idempotency("me", str(number), b""))])
                clock.now += 1
            await trimmed(store)
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("SELECT key FROM receipt").fetchall() == [("7",), ("8",), ("9",)]
            clock.now += 60
            await trimmed(store)
            with closing(sqlite3.connect(path)) as connection:
                keys = connection.execute("SELECT key FROM receipt").fetchall()
            assert keys == [("9",)], "the last one, so that its number is not given again"

    play(work())


def test_receipts_with_a_lifetime_stay_for_it(path: Path, clock: Clock) -> None:
    async def work() -> None:
        def keys() -> list[tuple[str]]:
            with closing(sqlite3.connect(path)) as connection:
                return connection.execute("SELECT key FROM receipt").fetchall()

        async with opened(path, Retention(idempotency_s=60.0, idempotency_bytes=3 * 768), clock) as store:
            await append_group(store, [Publish([draft("a")], {}, Idempotency("me", "lasting", b"", 600.0))])
            for number in range(10):
                await append_group(store, [Publish([draft("a")], {}, Idempotency("me", str(number), b""))])
            await trimmed(store)
            assert keys() == [("lasting",), ("7",), ("8",), ("9",)]
            clock.now += 599
            await trimmed(store)
            assert keys() == [("lasting",), ("9",)]
            clock.now += 1
            await trimmed(store)
            assert keys() == [("9",)]

    play(work())


def test_only_one_process_trims_at_a_time(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=1), clock) as store:
            await fill(store, "a", "1", "2")
            clock.now += 60
            descriptor = os.open(path.with_name("log.sqlite.bells"), os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            assert await trimmed(store) == 0
            os.close(descriptor)
            assert await trimmed(store) == 1

    play(work())


def test_a_clock_that_went_back_deletes_nothing_that_the_rule_keeps(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=2), clock) as store:
            for back in (0, 100, -200, 50, 300, -250):
                clock.now += back
                await fill(store, "a", "x")
            messages = (await store.retained()).messages
            await trimmed(store)
            kept = retain(messages, store._retention, int(clock.now * 1000)).messages
            assert {message.sequence for message in kept} <= set(rows(path))

    play(work())


def test_the_access_log_has_no_floor_though_others_are_merged(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=1), clock) as store:
            for _ in range(3):
                await append(store, draft(ACCESS_LOG, key="key:a"), draft("busy"))
            store._writer._connection.execute("UPDATE log SET floor = 1000")
            clock.now += 60
            assert await trimmed(store) == 4
            retained = await store.retained()
            assert [message.channel for message in retained.messages] == [ACCESS_LOG, "busy"]
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("SELECT channel FROM floor").fetchall() == [("busy",)]

    play(work())
