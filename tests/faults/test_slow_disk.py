"""A stalled disk under the log delays the responses to publishers, and nothing else."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from pushcompat.limits import Limits, Retention
from pushcompat.store.sqlite import SqliteStore

from ..harness import PATIENCE_S
from ..inprocess import LocalHub, running_hub
from .test_slow_log import POLL, answers, connect, nothing_came, publish, send

STREAM = b"GET /channels/chat?transport=eventsource HTTP/1.1\r\nHost: h\r\n\r\n"


class StandingStill:
    """A connection whose COMMIT waits for the disk."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.waits = threading.Event()
        self.goes_on = threading.Event()

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement == "COMMIT":
            self.waits.set()
            self.goes_on.wait(PATIENCE_S)
        return self._connection.execute(statement, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


@contextmanager
def standing_still(store: SqliteStore) -> Iterator[None]:
    whole = store._writer._connection
    disk = StandingStill(whole)
    store._writer._connection = disk  # type: ignore[assignment]
    try:
        yield
    finally:
        store._writer._connection = whole
        disk.goes_on.set()


@contextmanager
def locked_by_another(store: SqliteStore) -> Iterator[None]:
    """Another process holds the lock: it was stopped in the middle of its commit."""
    descriptor = os.open(store._files.beside(".lock"), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def hub_on(path: Path) -> AsyncIterator[tuple[LocalHub, SqliteStore]]:
    store = SqliteStore(path, Retention())
    async with running_hub(store, Limits()) as hub, asyncio.timeout(PATIENCE_S):
        yield hub, store
    await store.close()


@pytest.mark.parametrize("trouble", [standing_still, locked_by_another])
def test_while_the_disk_stands_still_only_publishers_wait(tmp_path: Path, trouble: object) -> None:
    async def work() -> None:
        with ExitStack() as stack:
            async with hub_on(tmp_path / "log.sqlite") as (hub, store):
                publisher, poller, stream = [await connect(hub, stack) for _ in range(3)]
                await send(publisher, publish(b"before"))
                await answers(publisher, 1)
                with trouble(store):  # type: ignore[operator]
                    await send(publisher, publish(b"waits"))
                    await hub.until_idle()
                    await send(stream, STREAM)
                    await hub.until_subscribed(stream)
                    for _ in range(3):
                        await send(poller, POLL)
                        (body,) = await answers(poller, 1)
                        assert body.count(b'"data"') == 1
                    assert await store.head() == (store.epoch, 1)
                    assert store.health().problem is None
                    assert nothing_came(publisher)
                await answers(publisher, 1)
                await send(poller, POLL)
                (body,) = await answers(poller, 1)
                assert b'"waits"' in body

    asyncio.run(work())


def test_a_publisher_that_is_alone_waits_for_its_commit_and_for_no_timer(tmp_path: Path) -> None:
    """The loop has nothing else to do, and no deadline that would wake it up."""

    async def work() -> None:
        with ExitStack() as stack:
            async with hub_on(tmp_path / "log.sqlite") as (hub, _):
                await hub.stop_clock()
                publisher = await connect(hub, stack)
                for number in range(100):
                    await send(publisher, publish(b"%d" % number))
                    await answers(publisher, 1)
                assert hub.history.head == 100

    asyncio.run(work())
