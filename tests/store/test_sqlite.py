"""The SQLite store: the contract, and what a file adds to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from msgspec.structs import replace

from pushcompat.errors import ConfigError, KeyReused, StoreFull, Unavailable
from pushcompat.limits import Retention
from pushcompat.message import Message, format_cursor
from pushcompat.store.base import Idempotency, Lost, Publish, Receipt, Store, StoreError
from pushcompat.store.sqlite import SqliteStore, start
from pushcompat.store.sqlite import follower as following
from pushcompat.store.sqlite import store as sqlite_store
from pushcompat.store.sqlite.files import WriteLock, max_bytes
from pushcompat.store.sqlite.trimmer import trim

from ..harness import PATIENCE_S
from .contract import (
    ALL,
    FEW,
    MANY,
    Clock,
    Contract,
    Follower,
    Open,
    append,
    append_group,
    batch,
    check_that_different_rules_break_nothing,
    draft,
    fill,
    kept,
    shown,
)
from .machine import SETTINGS, StoreMachine

Work = Callable[[SqliteStore], Coroutine[None, None, None]]


async def trimmed(store: SqliteStore, urgent: bool = False) -> int:
    """Trims now, and returns how many messages were deleted."""
    return await store._trims.do(partial(trim, store._files, store._retention, store._clocks[0], urgent))


class TestSqliteStore(Contract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        async def opened(retention: Retention, clock: Clock) -> Store:
            store = SqliteStore(tmp_path / "log.sqlite", retention, clock=clock, steady=clock)
            await store.open()
            return store

        return opened

    async def trim_soon(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await trimmed(store, urgent=True)

    async def trim(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await append_group(store, [Publish([draft("a", str(n)) for n in range(1000)])])
        await trimmed(store, urgent=True)


def test_processes_with_different_rules_break_nothing(path: Path, clock: Clock) -> None:
    async def trim_it(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await trimmed(store, urgent=True)

    async def work() -> None:
        async with opened(path, FEW, clock) as few, opened(path, MANY, clock) as many:
            await check_that_different_rules_break_nothing(few, many, trim_it)

    play(work())


class SqliteMachine(StoreMachine):
    restarts = True

    def __init__(self) -> None:
        super().__init__()
        self._directory = TemporaryDirectory()

    def teardown(self) -> None:
        super().teardown()
        self._directory.cleanup()

    async def open(self, retention: Retention, clock: Clock) -> Store:
        store = SqliteStore(Path(self._directory.name, "log.sqlite"), retention, clock=clock, steady=clock)
        await store.open()
        return store

    async def trim(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await trimmed(store, urgent=True)


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = SETTINGS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def opened(
    path: Path, retention: Retention = ALL, clock: Clock | None = None, synchronous: str = "NORMAL"
) -> AsyncIterator[SqliteStore]:
    clock = clock or Clock()
    store = SqliteStore(path, retention, synchronous, clock, clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def play(work: Coroutine[None, None, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await work

    asyncio.run(limited())


def edit(path: Path, *statements: str) -> None:
    """Does this to the file while nobody has it open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def content(path: Path) -> bytes:
    return path.read_bytes()


def move(path: Path, to: Path, instead: bytes | None = None) -> None:
    path.rename(to)
    if instead is not None:
        path.write_bytes(instead)


def publish(key: str = "k", channel: str = "a", lifetime_s: float = 0.0) -> list[Publish]:
    return [Publish([draft(channel)], {channel: 2}, Idempotency("me", key, b"digest", lifetime_s))]


# What a restart keeps


def test_after_a_restart_all_is_as_it_was_and_the_numbers_go_on(path: Path) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=2)) as store:
            epoch = store.epoch
            await fill(store, "a", *"1234")
            await append(store, draft("b", "5", key="k", type="t", ttl_s=60.0, spread_ms=1))
            before = await store.retained()
        async with opened(path, Retention(count=2)) as store:
            after = await store.retained()
            assert after._replace(messages=[]) == before._replace(messages=[])
            assert list(map(repr, after.messages)) == list(map(repr, before.messages))
            assert (after.floors, after.head, after.epoch) == ({"a": 2}, 5, epoch)
            assert await append(store, draft("a")) == Receipt(epoch, 6, {})

    play(work())


def test_a_key_is_known_after_a_restart_for_as_long_as_it_would_have_been_without(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, clock=clock) as store:
            await append_group(store, publish())
        clock.now += 299
        async with opened(path, clock=clock) as store:
            (again,) = await append_group(store, publish())
            assert (again.sequence, again.subscribers, again.repeated) == (1, {"a": 2}, True)
            clock.now += 1
            (late,) = await append_group(store, publish())
            assert (late.sequence, late.repeated) == (2, False)

    play(work())


def test_a_key_with_a_lifetime_is_known_for_it_after_a_restart_and_in_other_processes(path: Path, clock: Clock) -> None:
    retention = Retention(idempotency_s=10)

    async def work() -> None:
        async with opened(path, retention, clock) as store:
            await append_group(store, publish(lifetime_s=660.0))
        clock.now += 330
        async with opened(path, retention, clock) as one, opened(path, retention, clock) as other:
            await append_group(other, publish("other", lifetime_s=660.0))
            clock.now += 329
            for store, key in ((one, "k"), (other, "k"), (one, "other")):
                (again,) = await append_group(store, publish(key, lifetime_s=660.0))
                assert again.repeated
            clock.now += 1
            (late,) = await append_group(one, publish(lifetime_s=660.0))
            assert (late.sequence, late.repeated) == (3, False)

    play(work())


def test_ids_of_items_are_known_after_a_restart_and_in_other_processes(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, clock=clock) as store:
            await append_group(store, [batch("1 2")])
        async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
            assert (await append_group(one, [batch("3 2")]))[0].again == (1,)
            assert (await append_group(other, [batch("3 1 4")]))[0].again == (0, 1)
            (refused,) = await append_group(one, [batch("5 4=other")])
            assert isinstance(refused, KeyReused)
            assert await kept(one) == (["a:1", "a:2", "a:3", "a:4"], {})

    play(work())


def test_the_key_of_a_batch_that_had_nothing_new_is_known_after_a_restart_and_in_other_processes(
    path: Path, clock: Clock
) -> None:
    async def work() -> None:
        async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
            await append_group(one, [batch("1 2")])
            clock.now += 290
            (first,) = await append_group(one, [batch("2 1", key="k")])
            assert (first.repeated, first.again) == (True, (0, 1))
            clock.now += 20
            assert await append_group(other, [batch("2 1", key="k")]) == [first]
        async with opened(path, clock=clock) as store:
            assert await append_group(store, [batch("2 1", key="k")]) == [first]
            assert await kept(store) == (["a:1", "a:2"], {})

    play(work())


def test_keys_are_known_in_other_processes_also_after_a_trim_that_left_none(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
            for number in range(3):
                await append_group(other, publish(str(number)))
            clock.now += 300
            await trimmed(other)
            await append_group(one, publish("new"))
            (again,) = await append_group(other, publish("new"))
            assert again.repeated

    play(work())


def test_many_batches_with_hardly_anything_new_do_not_fill_the_log(path: Path, clock: Clock) -> None:
    async def work() -> None:
        retention = Retention(bytes=2**20, idempotency_bytes=100 * 1024)
        async with opened(path, retention, clock) as store:
            for number in range(40):
                clock.now += 2
                group = [batch("1 2", key=f"{number} {n} {'x' * 240}") for n in range(100)]
                await append_group(store, group)
                await store._trims.do(lambda: None)
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("SELECT count(*) FROM receipt").fetchone()[0] < 2000

    play(work())


OLDER_RECEIPTS = {
    1: """CREATE TABLE receipt (sequence INTEGER PRIMARY KEY, publisher TEXT NOT NULL, key TEXT NOT NULL,
          digest BLOB NOT NULL, epoch TEXT NOT NULL, subscribers TEXT NOT NULL, time_ms INTEGER NOT NULL)""",
    2: """CREATE TABLE receipt (sequence INTEGER PRIMARY KEY, publisher TEXT NOT NULL, key TEXT NOT NULL,
          digest BLOB NOT NULL, epoch TEXT NOT NULL, subscribers TEXT NOT NULL, time_ms INTEGER NOT NULL,
          lifetime_s REAL NOT NULL DEFAULT 0)""",
}


@pytest.mark.parametrize("version", OLDER_RECEIPTS)
def test_a_log_of_an_older_version_learns_of_lifetimes_and_ids_and_keeps_its_keys(path: Path, version: int) -> None:
    async def work() -> None:
        async with opened(path) as store:
            (first,) = await append_group(store, publish())
        with closing(sqlite3.connect(path)) as connection, connection:
            row = connection.execute(
                "SELECT sequence, publisher, key, digest, epoch, subscribers, time_ms FROM receipt"
            )
            values = row.fetchone()
            connection.execute("DROP TABLE receipt")
            connection.execute(OLDER_RECEIPTS[version])
            columns = "sequence, publisher, key, digest, epoch, subscribers, time_ms"
            connection.execute(f"INSERT INTO receipt ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            connection.execute(f"PRAGMA user_version = {version}")
        async with opened(path) as store:
            (again,) = await append_group(store, publish())
            (lasting,) = await append_group(store, publish("lasting", lifetime_s=660.0))
            assert (again, lasting.repeated) == (replace(first, repeated=True), False)
            await append_group(store, [batch("1")])
        async with opened(path) as store:
            assert (await append_group(store, [batch("2 1")]))[0].again == (1,)
        with closing(sqlite3.connect(path)) as connection:
            (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'receipt'").fetchone()
        assert made in start.SCHEMA

    play(work())


def test_a_number_is_not_given_again_when_the_last_messages_were_deleted(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, clock=clock) as store:
            await append(store, draft("a", ttl_s=1.0))
            clock.now += 60
            assert await trimmed(store) == 1
            assert await store.head() == (store.epoch, 1)
            assert (await append(store, draft("a", ttl_s=1.0))).sequence == 2
            clock.now += 60
            assert await trimmed(store) == 1
        async with opened(path, clock=clock) as store:
            assert (await store.retained()).head == 2
            assert (await append(store, draft("a"))).sequence == 3

    play(work())


def test_only_this_user_may_read_the_files(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as store:
            await fill(store, "a", "1")
            for file in path.parent.iterdir():
                assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file

    play(work())


# Two stores on one file: in one process here, as in two


def test_two_stores_on_one_file_are_one_log(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as one, opened(path) as other:
            assert one.epoch == other.epoch
            follower = Follower(one)
            assert [(await append(store, draft("a"))).sequence for store in (one, other, other, one)] == [1, 2, 3, 4]
            assert [message.sequence for message in await follower.read(4)] == [1, 2, 3, 4]
            assert await one.head() == await other.head() == (one.epoch, 4)
            await follower.aclose()

    play(work())


async def news_from_another(path: Path) -> None:
    async with opened(path) as one, opened(path) as other:
        reader = Follower(one)
        for number in range(1, 4):
            await fill(other, "a", str(number))
            assert [message.sequence for message in await reader.batch()] == [number]
        await reader.aclose()


def test_a_follower_in_another_process_is_told_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LOOK_S", PATIENCE_S * 1000)
    play(news_from_another(path))


def test_a_follower_without_bells_polls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_bell", lambda files: None)
    play(news_from_another(path))


def test_between_own_messages_those_of_others_come_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LOOK_S", PATIENCE_S * 1000)

    async def work() -> None:
        async with opened(path) as one, opened(path) as other:
            readers = [Follower(store) for store in (one, one, other)]
            for number in range(60):
                await fill((one, other, one, one, other)[number % 5], "a", str(number))
            for reader in readers:
                assert shown(await reader.read(60)) == [f"a:{number}" for number in range(60)]
                await reader.aclose()

    play(work())


def test_a_key_that_was_used_through_one_store_is_known_to_the_other(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as one, opened(path) as other:
            await append_group(one, publish())
            (again,) = await append_group(other, publish())
            assert (again.sequence, again.repeated) == (1, True)

    play(work())


def test_the_epoch_stays_when_one_of_two_stops_cleanly_and_is_opened_again(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as one:
            for _ in range(3):
                async with opened(path) as other:
                    await fill(other, "a", "x")
                    assert other.epoch == one.epoch
                await fill(one, "a", "x")
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("SELECT clean FROM log").fetchone() == (0,)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT clean FROM log").fetchone() == (1,)

    play(work())


def test_a_follower_in_another_process_hears_a_new_epoch(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as one:
            await fill(one, "a", "1")
            follower = Follower(one, 1)
            path.with_name("log.sqlite.mark").unlink()
            async with opened(path) as other:
                assert other.epoch != one.epoch
                with pytest.raises(Lost):
                    await follower.batch()
                assert (await one.retained()).epoch == other.epoch
                receipt = await append(one, draft("a"))
                assert (receipt.epoch, receipt.sequence, one.epoch) == (other.epoch, 2, other.epoch)

    play(work())


# When the epoch must be new


@pytest.mark.parametrize(
    ("harm", "renewed"),
    [
        pytest.param("UPDATE log SET boot = 'another'", False, id="another boot after a clean stop"),
        pytest.param("UPDATE log SET boot = 'another', clean = 0", True, id="another boot, not stopped"),
        pytest.param("UPDATE log SET clean = 0", False, id="kill -9"),
        pytest.param("UPDATE log SET boot = 'another', clean = 0, synchronous = 'FULL'", False, id="FULL"),
        pytest.param("UPDATE log SET file = '1:2'", True, id="another file"),
        pytest.param("DELETE FROM message WHERE sequence = 3", True, id="an older copy"),
        pytest.param("UPDATE log SET starts = starts - 1", True, id="a copy of before the last start"),
    ],
)
def test_the_epoch_is_new_if_what_was_acknowledged_may_be_missing_and_only_then(
    path: Path, harm: str, renewed: bool
) -> None:
    async def work() -> None:
        async with opened(path) as store:
            await fill(store, "a", *"123")
            epoch = store.epoch
        edit(path, harm)
        async with opened(path) as store:
            assert (store.epoch != epoch) == renewed
            retained = await store.retained()
            assert retained.epoch == store.epoch
            assert shown(retained.messages)[:2] == ["a:1", "a:2"]

    play(work())


@pytest.mark.parametrize("content", [None, b"", b"x" * 24, format_cursor("another1", 1).encode()])
def test_without_its_mark_the_log_goes_on_under_a_new_epoch(path: Path, content: bytes | None) -> None:
    async def work() -> None:
        async with opened(path) as store:
            await fill(store, "a", *"123")
            epoch = store.epoch
        mark = path.with_name("log.sqlite.mark")
        mark.unlink()
        if content is not None:
            mark.write_bytes(content)
        async with opened(path) as store:
            assert store.epoch != epoch
            assert (await append(store, draft("a"))).sequence == 4
            assert mark.read_text().startswith(format_cursor(store.epoch, 4))

    play(work())


def test_a_copy_that_is_put_back_over_the_file_is_noticed_whatever_came_after_it(path: Path) -> None:
    """Within the second, and though the file keeps its inode."""

    async def work() -> None:
        async with opened(path) as store:
            await fill(store, "a", "1")
        backup = content(path)
        async with opened(path) as store:
            epoch = store.epoch
            await fill(store, "a", "2")
        with path.open("r+b") as file:
            file.write(backup)
            file.truncate()
        async with opened(path) as store:
            assert store.epoch != epoch
            assert (await append(store, draft("a"))).sequence == 2

    play(work())


def test_a_directory_that_is_put_back_as_it_was_is_noticed(path: Path) -> None:
    """With its mark, which then tells nothing; but its file is another."""

    async def work() -> None:
        async with opened(path) as store:
            await fill(store, "a", "1")
        backup = path.parent.with_name("backup")
        shutil.copytree(path.parent, backup)
        async with opened(path) as store:
            epoch = store.epoch
            await fill(store, "a", "2")
        move(path.parent, path.parent.with_name("before"))  # so that its inodes are not used again
        shutil.copytree(backup, path.parent)
        async with opened(path) as store:
            assert store.epoch != epoch

    play(work())


def test_a_file_in_place_of_one_that_was_deleted_is_another_though_it_has_its_inode(tmp_path: Path) -> None:
    seen: dict[int, str] = {}
    for number in range(100):
        with (tmp_path / "file").open("wb") as file:
            inode, identity = os.fstat(file.fileno()).st_ino, start.identity(file.fileno())
        if inode in seen:
            no_generation = identity.endswith(":00000000")
            assert no_generation or identity != seen[inode], number
        seen[inode] = identity
        (tmp_path / "file").unlink()


def test_the_mark_is_written_before_the_publisher_is_answered(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as store:
            for number in (1, 2, 3):
                await append(store, draft("a"))
                assert path.with_name("log.sqlite.mark").read_text().startswith(format_cursor(store.epoch, number))

    play(work())


def test_appends_are_synced_as_the_option_says(path: Path) -> None:
    async def work() -> None:
        for synchronous, number in (("NORMAL", 1), ("FULL", 2)):
            async with opened(path, synchronous=synchronous) as store:
                assert store._writer._connection.execute("PRAGMA synchronous").fetchone() == (number,)

    play(work())


def test_a_log_that_was_vacuumed_goes_on_under_its_epoch(path: Path) -> None:
    async def work() -> None:
        async with opened(path, Retention(count=1)) as store:
            epoch = store.epoch
            await fill(store, "a", *("x" * 10_000 for _ in range(100)))
            assert await trimmed(store, urgent=True) == 99
        size = len(content(path))
        edit(path, "VACUUM")
        assert len(content(path)) < size / 10
        async with opened(path, Retention(count=1)) as store:
            assert store.epoch == epoch
            assert await store.head() == (epoch, 100)

    play(work())


# Files that are not as they should be


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        asyncio.run(SqliteStore(path, ALL).open())
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} is a directory; name a file in it, such as {tmp_path / 'log.sqlite'}"


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "no" / "log")
        == f"directory {tmp_path / 'no'} does not exist; create it, or set another --store"
    )


def test_a_directory_that_cannot_be_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda asked, mode: asked != path.parent)
    assert refusal(path).startswith(f"the directory {path.parent} cannot be written to; ")


def test_a_file_that_cannot_be_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(_once(path))
    monkeypatch.setattr(os, "access", lambda asked, mode: asked != path)
    assert refusal(path).startswith(f"the file {path} cannot be written to; ")


async def _once(path: Path) -> None:
    async with opened(path) as store:
        await fill(store, "a", "1")


def test_a_text_file_is_left_alone(path: Path) -> None:
    path.write_text("dear diary, " * 100)
    assert refusal(path) == f"{path} is not a log of this server; set another --store"
    assert path.read_text().startswith("dear diary")
    assert list(path.parent.iterdir()) == [path], "nothing was made beside it"


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    edit(path, "CREATE TABLE comments (text)")
    before = path.read_bytes()
    assert refusal(path) == f"{path} is not a log of this server; set another --store"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    assert refusal(path) == f"cannot open the log {path}: File name too long: {path}"


def test_a_device_or_a_fifo_in_place_of_the_file(path: Path) -> None:
    os.mkfifo(path)
    assert refusal(path) == f"{path} is not a regular file; set another --store"
    path.unlink()
    path.symlink_to(os.devnull)
    assert refusal(path) == f"{path} is not a regular file; set another --store"
    assert list(path.parent.iterdir()) == [path]


def test_a_log_of_a_newer_version_is_left_alone(path: Path) -> None:
    play(_once(path))
    edit(path, "PRAGMA user_version = 99")
    assert "has format 99 of a newer pushcompat, this one knows up to 3; install the newer one again" in refusal(path)
    edit(path, "PRAGMA user_version = 3")
    play(_once(path))


def test_a_log_of_an_older_version_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        await _once(path)
        monkeypatch.setattr(start, "VERSION", 5)
        steps = {
            3: ("ALTER TABLE log ADD COLUMN one", "UPDATE log SET one = 1"),
            4: ("ALTER TABLE log ADD COLUMN two",),
        }
        monkeypatch.setattr(start, "MIGRATIONS", steps)
        for _ in range(2):
            async with opened(path) as store:
                assert await kept(store) == (["a:1"], {})
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (5,)
            assert connection.execute("SELECT one, two FROM log").fetchone() == (1, None)

    play(work())


def test_the_columns_are_the_fields_of_a_message(path: Path) -> None:
    play(_once(path))
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(message)")]
    assert tuple(columns) == Message.__struct_fields__


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 2048)


@pytest.mark.parametrize("offset", [0, 4096, 8192], ids=["the header", "a page", "another page"])
def test_a_damaged_log_is_kept_aside_and_a_new_one_begins(path: Path, offset: int) -> None:
    async def work() -> None:
        async with opened(path) as store:
            epoch = store.epoch
            for _ in range(10):
                await fill(store, "a", "x" * 1000)
        damage(path, offset)
        damaged = content(path)
        async with opened(path) as store:
            assert store.epoch != epoch
            assert await kept(store) == ([], {})
            (aside,) = path.parent.glob("log.sqlite.damaged-*")
            assert aside.read_bytes() == damaged
            await fill(store, "a", "1")

    play(work())


def test_a_damaged_log_that_others_use_is_not_moved_away_under_them(path: Path) -> None:
    async def work() -> None:
        async with opened(path):
            damage(path, 0)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink()
            with pytest.raises(ConfigError, match="other processes use it"):
                await SqliteStore(path, ALL).open()
            assert not list(path.parent.glob("*.damaged-*"))

    play(work())


# When it cannot be written, or read


class _Failing:
    """A connection that fails at one statement, as a disk does."""

    def __init__(self, connection: sqlite3.Connection, statement: str, code: int) -> None:
        self._connection = connection
        self._statement = statement
        self._code = code

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement.startswith(self._statement):
            error = sqlite3.OperationalError("the disk says no")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(statement, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


@pytest.mark.parametrize("statement", ["BEGIN", "SELECT", "INSERT", "COMMIT"])
@pytest.mark.parametrize(
    ("code", "outcome", "ready"),
    [
        pytest.param(sqlite3.SQLITE_FULL, StoreFull, True, id="full"),
        pytest.param(sqlite3.SQLITE_IOERR, Unavailable, False, id="input/output error"),
        pytest.param(sqlite3.SQLITE_CORRUPT, Unavailable, False, id="corrupt"),
    ],
)
def test_a_failed_group_stores_nothing_and_the_next_one_is_complete(
    path: Path, statement: str, code: int, outcome: type[Exception], ready: bool
) -> None:
    async def work() -> None:
        async with opened(path) as store:
            await fill(store, "a", "1")
            whole = store._writer._connection
            store._writer._connection = _Failing(whole, statement, code)  # type: ignore[assignment]
            group = [Publish([draft("a", "2"), draft("b", "3")]), *publish()]
            outcomes = await append_group(store, group)
            assert [type(said) for said in outcomes] == [outcome, outcome]
            assert (store.health().problem is None) == ready
            assert not store.health().writable
            store._writer._connection = whole
            assert await kept(store) == (["a:1"], {})
            (receipt,) = await append_group(store, publish())
            assert (receipt.sequence, receipt.repeated) == (2, False)
            assert store.health().problem is None
            assert store.health().writable

    play(work())


def test_a_follower_waits_for_a_log_that_cannot_be_read_and_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with opened(path) as one, opened(path) as other:
            follower = Follower(one)
            await fill(other, "a", "1")
            await follower.batch()
            with monkeypatch.context() as trouble:
                trouble.setattr(following.Follower, "_read", _unreadable)
                await fill(other, "a", "2")
                while one.health().problem is None:
                    await asyncio.sleep(0)
                assert one.health().problem == "the log cannot be read: disk I/O error"
            assert shown(await follower.read(1)) == ["a:2"]
            while one.health().problem is not None:
                await asyncio.sleep(0)
            await follower.aclose()

    play(work())


def _unreadable(follower: following.Follower, connection: sqlite3.Connection, position: int) -> None:
    raise sqlite3.OperationalError("disk I/O error")


class _Unwritable:
    def write(self, place: object) -> None:
        raise OSError(5, "Input/output error")


def test_a_publish_that_was_stored_though_its_answer_was_an_error_is_not_stored_again(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as store:
            mark = store._writer._mark
            store._writer._mark = _Unwritable()  # type: ignore[assignment]
            (outcome,) = await append_group(store, publish())
            assert isinstance(outcome, Unavailable)
            store._writer._mark = mark
            (again,) = await append_group(store, publish())
            assert (again.sequence, again.repeated) == (1, True)

    play(work())


def test_a_full_log_refuses_whole_publishes_and_goes_on_when_there_is_room(path: Path, clock: Clock) -> None:
    retention = Retention(count=3, bytes=64 * 1024, idempotency_bytes=0)

    async def work() -> None:
        async with opened(path, retention, clock) as store:
            most = max_bytes(retention) // 4096
            store._trimming = True  # no trim in the meantime
            store._writer._connection.execute("PRAGMA max_page_count = 100")
            taken = 0
            while isinstance((await append_group(store, [Publish([draft("a", "x" * 5000)] * 1)]))[0], Receipt):
                taken += 1
            assert 10 < taken < 100
            outcomes = await append_group(store, [Publish([draft("a", "x" * 3000)]) for _ in range(50)])
            assert {type(outcome) for outcome in outcomes} == {StoreFull}
            assert await store.head() == (store.epoch, taken)
            store._trimming = False
            clock.now += 60
            assert await trimmed(store) == taken - 3
            store._writer._connection.execute(f"PRAGMA max_page_count = {most}")
            assert (await append(store, draft("a", "x" * 5000))).sequence == taken + 1

    play(work())


def test_a_store_reports_a_log_that_cannot_be_read(path: Path) -> None:
    async def work() -> None:
        async with opened(path) as store:
            store._connection.close()
            for ask in (store.retained, store.head):
                with pytest.raises(StoreError):
                    await ask()

    play(work())


def test_a_log_that_does_not_answer_for_long_is_a_problem_until_it_does(path: Path, clock: Clock) -> None:
    async def work() -> None:
        async with opened(path, clock=clock) as store:
            answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            with closing(WriteLock(path.with_name("log.sqlite.lock"))) as other, other:
                store.append([Publish([draft("a")])], answered.set_result)
                clock.now += 9
                assert store.health().problem is None
                clock.now += 1
                assert "the log has not answered for 10 s" in str(store.health().problem)
            await answered
            assert store.health().problem is None

    play(work())


def test_a_publish_that_fails_unexpectedly_is_refused_and_the_next_one_is_stored(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with opened(path) as store:
            group = [Publish([draft("a", type="\ud800")]), Publish([draft("a", "x")])]
            assert {type(outcome) for outcome in await append_group(store, group)} == {Unavailable}
            assert "BUG" in caplog.text
            caplog.clear()
            assert (await append(store, draft("a"))).sequence == 1

    play(work())


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
def test_nothing_is_acknowledged_any_more_once_the_file_was_taken_away(path: Path, replaced: bool) -> None:
    async def work() -> None:
        async with opened(path) as store:
            follower = Follower(store)
            async with opened(path) as other:
                await fill(other, "a", "1")  # so the follower has opened the file to read it
            await follower.batch()
            move(path, path.with_name("moved"), b"" if replaced else None)
            while store.health().problem is None:
                await asyncio.sleep(0)
            assert "removed or replaced" in str(store.health().problem)
            (outcome,) = await append_group(store, publish())
            assert isinstance(outcome, Unavailable)
            move(path.with_name("moved"), path)
            while store.health().problem is not None:
                await asyncio.sleep(0)
            assert (await append(store, draft("a"))).sequence == 2
            await follower.aclose()

    play(work())


# Closing


def test_publishes_passed_to_the_log_before_it_closes_are_answered_and_stored(path: Path) -> None:
    async def work() -> None:
        answered: list[object] = []
        async with opened(path) as store:
            store.append([Publish([draft("a", "1")])], answered.extend)
        assert answered == [Receipt(store.epoch, 1, {})]
        store.append([Publish([draft("a", "2")])], answered.extend)
        assert isinstance(answered[1], Unavailable)
        async with opened(path) as store:
            assert await kept(store) == (["a:1"], {})

    play(work())


def test_a_file_that_was_taken_away_is_not_made_again_at_the_end(path: Path) -> None:
    async def work() -> None:
        async with opened(path):
            move(path, path.with_name("moved"))

    play(work())
    assert not path.exists()


def test_a_disk_that_stands_still_at_the_end_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(sqlite_store, "_CLOSE_S", 0.01)
        with closing(WriteLock(path.with_name("log.sqlite.lock"))) as other:
            async with opened(path):
                other.__enter__()
        assert "the log was not closed: no answer in time" in caplog.text
        caplog.clear()

    play(work())


def test_nothing_is_left_beside_the_file_that_grows(path: Path) -> None:
    async def work() -> None:
        for _ in range(3):
            async with opened(path) as store:
                follower = Follower(store)
                await fill(store, "a", "1")
                await follower.batch()
                await follower.aclose()
        assert sorted(file.name for file in path.parent.iterdir()) == [
            "log.sqlite", "log.sqlite.bells", "log.sqlite.lock", "log.sqlite.mark",
        ]  # fmt: skip
        assert not list(path.with_name("log.sqlite.bells").iterdir())

    play(work())
