"""Trimming: deletes messages that need not be retained, and raises the floors.

One pass reads the relevant columns of each message, without a lock, and ``retain``, the rule of all stores, decides
which messages stay. The others are deleted in slices, each a transaction under the write lock (a millisecond), together
with their floors: a reader sees either a message, or a floor at or above it. Only one process trims at a time.

Messages younger than ``_GRACE_S`` are left, since a slow follower may not have read them yet and would have to reload
the log. Except at twice the byte budget, or if the log is full: publishers would be refused.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, cast

import msgspec

from ...limits import Retention
from ...message import ACCESS_LOG, Message
from ..base import MOST_FLOORS, Kept, fold, retain
from ..receipts import most_entries
from .files import PAGE_BYTES, Files, WriteLock, pages_used, transaction
from .start import HEAD

_GRACE_S = 10.0
_SLICE = 1000  # messages
_AT_LEAST = 16_384  # messages; for fewer a pass is not worth it
_LOG = f"SELECT floor, evicted, {HEAD} FROM log"
_MESSAGES = """SELECT sequence, channel, key, ttl_s, time_ms, length(data) FROM message
               WHERE sequence <= ? ORDER BY sequence"""
# The last one that is too old, or beyond the maximum number, of those without a lifetime of their own
_RECEIPTS = """SELECT max(coalesce((SELECT max(number) FROM receipt WHERE lifetime_s = 0 AND time_ms <= ?), 0),
                          coalesce((SELECT number FROM receipt WHERE lifetime_s = 0
                                    ORDER BY number DESC LIMIT 1 OFFSET ?), 0))"""
# The last one stays: other processes look for receipts with higher numbers than they have read
_NOT_LAST = "number < (SELECT max(number) FROM receipt)"
_RAISE = """INSERT INTO floor VALUES (?, ?)
            ON CONFLICT (channel) DO UPDATE SET sequence = max(sequence, excluded.sequence)"""


def trim(files: Files, retention: Retention, clock: Callable[[], float], urgent: bool) -> int:
    """Returns the number of deleted messages; 0 also if another process is trimming. Raises sqlite3.Error, OSError."""
    with _alone(files) as alone:
        if not alone:
            return 0
        with closing(files.connect()) as connection, closing(WriteLock(files.beside(".lock"))) as lock:
            return _Trim(connection, lock, retention, int(clock() * 1000)).run(urgent)


class _Outline(NamedTuple):
    """The input of the decision: the messages that are old enough, and the floors."""

    messages: list[Message]
    floors: dict[str, int]
    floor: int
    evicted: int
    receipts_upto: int


class _Trim:
    def __init__(self, connection: sqlite3.Connection, lock: WriteLock, retention: Retention, now_ms: int) -> None:
        self._connection = connection
        self._lock = lock
        self._retention = retention
        self._now_ms = now_ms

    def run(self, urgent: bool) -> int:
        urgent = urgent or pages_used(self._connection) * PAGE_BYTES > 2 * self._retention.bytes
        outline = self._outline(urgent)
        kept = retain(outline.messages, self._retention, self._now_ms, outline.floor, outline.floors, outline.evicted)
        stays = {message.sequence for message in kept.messages}
        dead = [message for message in outline.messages if message.sequence not in stays]
        for start in range(0, len(dead), _SLICE):
            with self._lock, transaction(self._connection, "BEGIN IMMEDIATE"):
                self._delete(dead[start : start + _SLICE], kept)
        with self._lock, transaction(self._connection, "BEGIN IMMEDIATE"):
            self._finish(kept, len(stays), outline.receipts_upto)
        return len(dead)

    def _outline(self, urgent: bool) -> _Outline:
        execute = self._connection.execute
        young_ms = self._now_ms - int(_GRACE_S * 1000)
        over_ms = self._now_ms - int(self._retention.idempotency_s * 1000)
        with transaction(self._connection):
            floor, evicted, head = execute(_LOG).fetchone()
            floors = dict(execute("SELECT channel, sequence FROM floor").fetchall())
            rows = execute(_MESSAGES, (head if urgent else self._older_than(young_ms, head),)).fetchall()
            (receipts_upto,) = execute(_RECEIPTS, (over_ms, most_entries(self._retention))).fetchone()
        return _Outline([_outline_of(row) for row in rows], floors, floor, evicted, receipts_upto)

    def _older_than(self, time_ms: int, head: int) -> int:
        """The last sequence number of that age, by bisection; approximate if the clock went back."""
        (first,) = self._connection.execute("SELECT min(sequence) FROM message").fetchone()
        numbers = range(first or head, head + 1)
        return numbers.start - 1 + bisect_right(numbers, time_ms, key=self._time_ms)

    def _time_ms(self, sequence: int) -> int:
        """The time of the first message from ``sequence`` on."""
        row = self._connection.execute(
            "SELECT time_ms FROM message WHERE sequence >= ? ORDER BY sequence LIMIT 1", (sequence,)
        ).fetchone()
        return self._now_ms if row is None else int(row[0])

    def _delete(self, dead: Sequence[Message], kept: Kept) -> None:
        """Deletes them, and raises the floors of their channels: not for replaced or expired messages above the final
        floors.
        """
        raised: dict[str, int] = {}
        for message in dead:
            channel, sequence = message.channel, message.sequence
            if channel != ACCESS_LOG and sequence <= kept.floors.get(channel, kept.floor):
                raised[channel] = max(raised.get(channel, 0), sequence)
        self._connection.execute(
            f"UPDATE log SET head = {HEAD}"
        )  # the messages that it is computed from may be deleted
        sequences = msgspec.json.encode([message.sequence for message in dead]).decode()
        self._connection.execute("DELETE FROM message WHERE sequence IN (SELECT value FROM json_each(?))", (sequences,))
        self._connection.executemany(_RAISE, raised.items())
        if raised:
            self._connection.execute("UPDATE log SET evicted = max(evicted, ?)", (max(raised.values()),))

    def _finish(self, kept: Kept, stay: int, receipts_upto: int) -> None:
        """Merges floors, deletes receipts, and sets when to trim again."""
        execute = self._connection.execute
        floor = kept.floor
        if execute("SELECT count(*) FROM floor").fetchone()[0] > MOST_FLOORS:
            floor, _ = fold(dict(execute("SELECT channel, sequence FROM floor").fetchall()), floor)
            execute("DELETE FROM floor WHERE sequence <= ?", (floor,))
        execute(f"DELETE FROM receipt WHERE lifetime_s = 0 AND number <= ? AND {_NOT_LAST}", (receipts_upto,))
        over = f"lifetime_s > 0 AND time_ms + lifetime_s * 1000 <= ? AND {_NOT_LAST}"
        execute(f"DELETE FROM receipt WHERE {over}", (self._now_ms,))
        (head,) = execute(f"SELECT {HEAD} FROM log").fetchone()
        pages = pages_used(self._connection) + self._retention.bytes // 4 // PAGE_BYTES
        execute(
            "UPDATE log SET floor = max(floor, ?), trim_at = ?, trim_at_pages = ?",
            (floor, head + max(stay, _AT_LEAST), pages),
        )


def _outline_of(row: tuple[Any, ...]) -> Message:
    """``retain`` needs only the payload's length, so the payload is not read."""
    sequence, channel, key, ttl_s, time_ms, size = row
    data = cast(bytes, range(size))
    return Message(channel, data, key=key, ttl_s=ttl_s, time_ms=time_ms, sequence=sequence)


@contextmanager
def _alone(files: Files) -> Iterator[bool]:
    """Yields whether this process may trim: no other process does until the context ends."""
    descriptor = os.open(files.beside(".bells"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
