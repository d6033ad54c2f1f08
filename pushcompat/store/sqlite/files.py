"""The files of one log, the connections to it, and the write lock.

    log.sqlite         the database, in WAL mode; ``-wal`` and ``-shm`` beside it are SQLite's
    log.sqlite.lock    held (flock) by the process that writes, from before BEGIN until the mark is written
    log.sqlite.mark    the end of the log when the last publish was acknowledged; held (flock, shared) by every
                       process that has the log open
    log.sqlite.bells/  a FIFO for each follower; held (flock) by the process that trims
    log.sqlite.presence    subscribers by process (``registry``)

SQLite's busy handler is not a queue: with four processes one of them got a tenth of the others' share, and the WAL grew
to ten times its size. ``flock`` wakes the waiting process, and the kernel releases it when a process dies.
Descriptors for ``flock`` must not be shared by a fork, so everything here is opened after it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...limits import Retention
from ...message import CURSOR_WIDTH, format_cursor, parse_cursor

PAGE_BYTES = 4096
_WAL_BYTES = 4 * 1024 * 1024  # size of the WAL after a checkpoint
_ROOM_BYTES = 16 * 1024 * 1024  # for other data, and for the writes of a trim
_ACCESS_LOG_BYTES = 64 * 1024 * 1024  # 100,000 entries (``access.log``)
_BUSY_S = 10.0  # for programs that do not use our lock: the sqlite3 shell, a backup
_LOCK_POLL_S = 0.01
_MARK_BYTES = CURSOR_WIDTH + 12


@dataclass(frozen=True, slots=True)
class Files:
    path: Path
    synchronous: str  # SQLite's NORMAL or FULL
    max_bytes: int

    def beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def inode(self) -> int | None:
        """The inode of the file at this path now. None: there is none."""
        try:
            return os.stat(self.path).st_ino
        except FileNotFoundError:
            return None

    def connect(self) -> sqlite3.Connection:
        """A connection that starts no transactions implicitly. It may be used in one thread at a time."""
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            connection.execute(f"PRAGMA max_page_count = {self.max_bytes // PAGE_BYTES}")
        except BaseException:
            connection.close()
            raise
        return connection


def max_bytes(retention: Retention) -> int:
    """The maximum size of the database: more than twice the retained messages, so that trimming always has room; and
    the access log, which does not count among these.
    """
    return 4 * retention.bytes + 2 * retention.idempotency_bytes + _ROOM_BYTES + _ACCESS_LOG_BYTES


class WriteLock:
    """Held by one thread of one process at a time: each holder opens its own lock."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Holds it, or raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


class Place(NamedTuple):
    """The end of the log: the highest sequence number given, and the number of process starts."""

    epoch: str
    head: int
    starts: int


class Mark:
    """The place in the file beside the log. Read, written and compared under the write lock."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> Place | None:
        """None if there is no valid mark."""
        text = os.pread(self._descriptor, _MARK_BYTES, 0).decode("latin-1")
        cursor, starts = parse_cursor(text[:CURSOR_WIDTH]), text[CURSOR_WIDTH + 1 : -1]
        if cursor is None or not starts.isdecimal():
            return None
        return Place(*cursor, int(starts))

    def write(self, place: Place) -> None:
        epoch, head, starts = place
        os.pwrite(self._descriptor, f"{format_cursor(epoch, head)} {starts:010d}\n".encode(), 0)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def alone(self) -> bool:
        """Whether no other process has the log open. Processes open and close it under the write lock."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Shows other processes, as long as this is open, that they are not alone."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN") -> Iterator[None]:
    """Reads see one state, and writes are atomic."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # an error such as SQLITE_FULL has ended it already
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def pages_used(connection: sqlite3.Connection) -> int:
    """The used pages of the database; free ones are reused."""
    (count,), (free,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
    return int(count - free)
