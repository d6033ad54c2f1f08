"""The store: its threads, and its part in the event loop."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

from ... import logs
from ...errors import ConfigError
from ...limits import Retention
from ...logs import Event
from ...message import Message
from ..base import Done, Health, News, Publish, Retained, StoreError, retain
from . import start
from .bells import Bells
from .files import Files, Mark, max_bytes, transaction
from .follower import Follower, message_of
from .registry import SqliteRegistry
from .thread import Thread
from .trimmer import trim
from .writer import Appended, Writer, unavailable

FILE = "log.sqlite"  # in the state directory, if no other is named
_SYNCHRONOUS = {"normal": "NORMAL", "full": start.FULL}
_STANDSTILL_S = 10.0  # of an append, until it is a problem that health tells
_CLOSE_S = 3.0  # a stalled disk must not delay the exit for longer
_TRIM_EVERY_S = 1.0  # at most: a pass over the log costs all threads time
_SWITCH_S = 0.0005  # see ``open``

_Result = TypeVar("_Result")


class SqliteStore:
    """A log in a file, that any number of processes of this machine may share."""

    def __init__(
        self,
        path: Path,
        retention: Retention,
        synchronous: str = "NORMAL",
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = ""
        self._files = Files(path, synchronous, max_bytes(retention))
        self._retention = retention
        self._clocks = clock, steady
        self._bells = Bells(self._files.beside(".bells"))
        self._followers: set[Follower] = set()
        self._trimming = False
        self._trimmed_at = -_TRIM_EVERY_S
        self._trouble: str | None = None  # of the writer
        self._asked_at: float | None = None  # when it was given the group that it has not answered yet
        self._full = False
        self._closed = False

    @classmethod
    def from_url(cls, url: str, retention: Retention, state_dir: Path) -> SqliteStore:
        """``sqlite:[PATH][?synchronous=full]``. Raises ConfigError."""
        path, mark, query = url.removeprefix("sqlite:").partition("?")
        try:
            options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark)))
        except ValueError:
            options = {query: ""}
        synchronous = _SYNCHRONOUS.get(options.pop("synchronous", "normal"))
        if synchronous is None or options:
            raise ConfigError("after ? only synchronous=normal or synchronous=full may follow")
        if not path:
            with suppress(OSError):  # errors are reported when it is opened
                state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(Path(path) if path else state_dir / FILE, retention, synchronous)

    # Life

    async def open(self) -> None:
        # Threads wait at most this long for the interpreter's lock, instead of 5 ms for each step
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
        self._reads, self._writes, self._trims = Thread("log reads"), Thread("log writes"), Thread("log trims")
        started = await self._reads.do(partial(start.start, self._files))
        self._mark: Mark = started.mark
        self.epoch = started.epoch
        self._inode = self._files.inode()
        self._announce(started)
        make = partial(Writer, self._files, self._mark, self._bells, self._retention, self._clocks, self._trim_soon)
        try:
            self._writer: Writer = await self._writes.do(make)
            self._connection: sqlite3.Connection = await self._reads.do(self._files.connect)
        except (sqlite3.Error, OSError) as error:
            raise start.refusal(self._files.path, error) from None

    async def close(self) -> None:
        """Finishes pending work, if the disk responds."""
        self._closed = True
        for follower in self._followers:
            follower.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._close()
        except (TimeoutError, sqlite3.Error, OSError) as error:
            logs.event(
                Event.LOG_TROUBLE,
                logging.WARNING,
                detail=f"the log was not closed: {str(error) or 'no answer in time'}",
            )

    async def _close(self) -> None:
        await self._writes.end()
        await self._trims.end()
        for follower in tuple(self._followers):
            await follower.gone.wait()
        self._writer.close()
        self._bells.close()
        await self._reads.do(self._connection.close)
        await self._reads.do(partial(start.stop, self._files, self._mark))
        await self._reads.end()
        self._mark.close()

    def _announce(self, started: start.Started) -> None:
        if started.kept_as is not None:
            detail = f"{self._files.path} is damaged: it is kept as {started.kept_as}, and a new log is created"
            logs.event(Event.LOG_DAMAGED, logging.ERROR, detail=detail)
        if started.renewed is not None:
            logs.event(Event.LOG_RENEWED, logging.WARNING, epoch=started.epoch, detail=started.renewed)

    # Appending

    def append(self, group: Sequence[Publish], done: Done) -> None:
        if self._closed or any(follower.replaced for follower in self._followers):
            done([unavailable] * len(group))
        else:
            self._asked_at = self._clocks[1]()
            self._writes.put(partial(self._append, group, done))

    def _append(self, group: Sequence[Publish], done: Done) -> None:
        """In the writing thread."""
        self._writes.call(partial(self._appended, self._writer.append(group), done))

    def _appended(self, appended: Appended, done: Done) -> None:
        self._asked_at = None
        if appended.trouble != self._trouble:
            self._note(appended)
        if appended.messages:
            self.epoch = appended.epoch
            for follower in tuple(self._followers):
                follower.offer(appended.epoch, appended.first, appended.messages)
        done(appended.outcomes)

    def _note(self, appended: Appended) -> None:
        """Logs when appending starts to fail, and when it works again. A full log can be read, so the server stays
        ready.
        """
        if appended.trouble is None:
            logs.event(Event.LOG_WORKS, logging.WARNING)
        else:
            logs.event(Event.LOG_TROUBLE, logging.WARNING, detail=appended.trouble)
        self._trouble = appended.trouble
        self._full = appended.full

    # Reading

    async def retained(self) -> Retained:
        return await self._ask(self._read_retained)

    async def head(self) -> tuple[str, int]:
        def read() -> tuple[str, int]:
            epoch, head = self._connection.execute(f"SELECT epoch, {start.HEAD} FROM log").fetchone()
            return epoch, head

        return await self._ask(read)

    async def follow(self, after: int, epoch: str, news: News) -> None:
        follower = Follower(self._files, self._inode, after, epoch, news)
        self._followers.add(follower)
        self._name_own_bells()
        leaving = asyncio.ensure_future(follower.gone.wait())
        leaving.add_done_callback(lambda _: self._forget(follower))
        try:
            await follower.ended
        finally:
            follower.close()

    def _forget(self, follower: Follower) -> None:
        self._followers.discard(follower)
        self._name_own_bells()

    def _name_own_bells(self) -> None:
        self._bells.own = frozenset(name for follower in self._followers if (name := follower.bell_name))

    def health(self) -> Health:
        problems = [
            self._standstill(),
            None if self._full else self._trouble,
            *(follower.problem for follower in self._followers),
        ]
        receipts = self._writer.receipts
        return Health(next(filter(None, problems), None), len(receipts), receipts.window_s, self._trouble is None)

    def _standstill(self) -> str | None:
        if self._asked_at is None or self._clocks[1]() < self._asked_at + _STANDSTILL_S:
            return None
        return (
            f"the log has not answered for {_STANDSTILL_S:.0f} s: its disk does not respond, "
            f"or a stopped process holds {self._files.beside('.lock')}"
        )

    async def _ask(self, read: Callable[[], _Result]) -> _Result:
        try:
            return await self._reads.do(read)
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from None

    def _read_retained(self) -> Retained:
        execute = self._connection.execute
        with transaction(self._connection):
            epoch, head, floor, evicted = execute(f"SELECT epoch, {start.HEAD}, floor, evicted FROM log").fetchone()
            floors = dict(execute("SELECT channel, sequence FROM floor").fetchall())
            rows = execute(f"SELECT {start.COLUMNS} FROM message ORDER BY sequence").fetchall()
        messages: list[Message] = [message_of(row) for row in rows]
        kept = retain(messages, self._retention, int(self._clocks[0]() * 1000), floor, floors, evicted)
        return Retained(kept.messages, kept.floor, head, epoch, kept.floors)

    def registry(self) -> SqliteRegistry:
        return SqliteRegistry(self._files.beside(".presence"))

    # Trimming

    def _trim_soon(self, urgent: bool) -> None:
        """Called from the writing thread; does nothing during a trim, or shortly after one."""
        now = self._clocks[1]()
        if not self._trimming and now >= self._trimmed_at + _TRIM_EVERY_S:
            self._trimming, self._trimmed_at = True, now
            self._trims.put(partial(self._trim, urgent))

    def _trim(self, urgent: bool) -> None:
        try:
            deleted = trim(self._files, self._retention, self._clocks[0], urgent)
            logs.event(Event.LOG_TRIMMED, logging.DEBUG, messages=deleted)
        except (sqlite3.Error, OSError) as error:
            logs.event(Event.LOG_TROUBLE, logging.WARNING, detail=f"the log cannot be trimmed: {error}")
        finally:
            self._trimming = False
