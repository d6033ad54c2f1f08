"""The registry of the processes that share a log on one machine: a separate SQLite file beside the log.

It is separate so that the registry and the log never wait for each other's lock. It is never synced, and is created
again if it is damaged or deleted: counts are soon exchanged again, and only the marks of channels are lost.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..base import StoreError
from ..presence import KEPT_NOTES, Exchanged
from .files import transaction
from .thread import Thread

_SCHEMA = """
CREATE TABLE IF NOT EXISTS note (number INTEGER PRIMARY KEY AUTOINCREMENT, process TEXT NOT NULL, text BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS whole (process TEXT PRIMARY KEY, number INTEGER NOT NULL, text BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS beat (process TEXT PRIMARY KEY, beat INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (channel TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""
_BUSY_S = 1.0

_Result = TypeVar("_Result")


class SqliteRegistry:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    async def open(self) -> None:
        self._thread = Thread("presence")  # a disk may stall

    async def exchange(
        self, process: str, note: bytes, whole: bytes, after: int, gone: Mapping[str, int], marks: Mapping[str, str]
    ) -> Exchanged:
        return await self._ask(lambda connection: _exchange(connection, process, note, whole, after, gone, marks))

    async def marks(self) -> Mapping[str, str]:
        return await self._ask(lambda connection: dict(connection.execute("SELECT channel, text FROM mark").fetchall()))

    async def _ask(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            return await self._thread.do(partial(self._do, work))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    async def close(self, process: str) -> None:
        with suppress(sqlite3.Error, OSError):
            await self._thread.do(partial(self._leave, process))
        await self._thread.end()

    # In the thread

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            with suppress(OSError):
                if os.stat(self._path).st_ino == self._inode:
                    return self._connection
            self._hang_up()
        self._path.touch(0o600)
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._connection, self._inode = connection, os.stat(self._path).st_ino
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(_SCHEMA)
        return connection

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _do(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            return work(self._connected())
        except sqlite3.DatabaseError as error:
            self._hang_up()
            if not isinstance(error, sqlite3.OperationalError):  # damaged, or not a database
                self._path.unlink(missing_ok=True)
                for suffix in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            raise

    def _leave(self, process: str) -> None:
        if self._connection is not None:
            for table in ("beat", "whole"):
                self._connection.execute(f"DELETE FROM {table} WHERE process = ?", (process,))
        self._hang_up()


def _exchange(
    connection: sqlite3.Connection,
    process: str,
    note: bytes,
    whole: bytes,
    after: int,
    gone: Mapping[str, int],
    marks: Mapping[str, str],
) -> Exchanged:
    execute = connection.execute
    own: int | None = 0
    with transaction(connection, "BEGIN IMMEDIATE"):
        execute("INSERT INTO beat VALUES (?, 1) ON CONFLICT DO UPDATE SET beat = beat + 1", (process,))
        for name_and_beat in gone.items():
            execute("DELETE FROM beat WHERE process = ? AND beat = ?", name_and_beat)
        if gone:
            execute("DELETE FROM whole WHERE process NOT IN (SELECT process FROM beat)")
        for channel, mark in marks.items():
            if mark:
                execute("INSERT OR REPLACE INTO mark VALUES (?, ?)", (channel, mark))
            else:
                execute("DELETE FROM mark WHERE channel = ?", (channel,))
        if note:
            own = execute("INSERT INTO note (process, text) VALUES (?, ?)", (process, note)).lastrowid
            execute("DELETE FROM note WHERE number <= ?", ((own or 0) - KEPT_NOTES,))
        if whole:
            execute("INSERT OR REPLACE INTO whole VALUES (?, ?, ?)", (process, own, whole))
        (number,) = execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'note'").fetchone()
        (first,) = execute("SELECT ifnull(min(number), ?) FROM note", (number + 1,)).fetchone()
        beats = dict(execute("SELECT process, beat FROM beat").fetchall())
        notes = [
            entry
            for table in ("note", "whole")
            for entry in execute(f"SELECT number, process, text FROM {table} WHERE number > ?", (after,))
        ]
    return Exchanged(number, own or 0, first, beats, notes)
