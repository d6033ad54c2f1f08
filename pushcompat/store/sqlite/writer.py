"""Appending: one transaction for each group, in a thread, so that a stalled disk delays only publishers.

Each call into SQLite releases the interpreter's lock, and a busy event loop returns it late. So a group is few calls,
whatever its number of messages: all rows of up to ``_ROWS`` messages are one INSERT. (64 publishers: 1.2 µs a
message, 2.1 µs by ``executemany``, and a tenth of the lock hand-overs.)

In the transaction, under the write lock: read the head, read receipts that other processes have stored since, insert
the rows. After the COMMIT, still under the lock, write the mark. Then the publishers are answered. After an error at
any point nothing of the group is stored: the transaction is rolled back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ... import logs
from ...errors import RequestError, StoreFull, Unavailable
from ...limits import Retention
from ...message import Message
from ..base import Idempotency, Outcome, Publish, Receipt
from ..items import NewDrafts, item_receipts, new_drafts
from ..receipts import Receipts, answer
from .bells import Bells
from .files import Files, Mark, Place, WriteLock, pages_used, transaction
from .start import HEAD, primary_code

_ROWS = 100  # in one INSERT: 900 values, below SQLite's lowest limit of 999


class _Form:
    """Some columns of a message: their values, and the INSERT statements by number of rows."""

    def __init__(self, *columns: str) -> None:
        self.values: Callable[[Message], tuple[object, ...]] = attrgetter(*columns)
        row = f"({', '.join('?' * len(columns))})"
        self.inserts = [
            f"INSERT INTO message ({', '.join(columns)}) VALUES {', '.join([row] * rows)}" for rows in range(_ROWS + 1)
        ]


_ALL = _Form(*Message.__struct_fields__)
_RARE = "key", "type", "ttl_s", "spread_ms"
_PLAIN = _Form(*(column for column in Message.__struct_fields__ if column not in _RARE))  # a quarter cheaper
_rare = attrgetter(*_RARE)
_NONE = (None,) * len(_RARE)

_LOG = f"SELECT epoch, {HEAD}, starts, coalesce((SELECT max(number) FROM receipt), 0) FROM log"
_RECEIPT = "number, sequence, publisher, key, digest, epoch, subscribers, again, time_ms, lifetime_s"
_INSERT_RECEIPT = f"INSERT INTO receipt ({_RECEIPT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SIZE_EVERY = 256  # messages and receipts between two checks of the size of the database

_full = StoreFull("the log is full; retry later. The log lines of the server say what to change")
unavailable = Unavailable("the log cannot be written now; retry with the same Idempotency-Key")


class Appended(NamedTuple):
    """The result of a group. ``messages`` are in the log from ``first`` on. ``trouble``: a message for the operator."""

    outcomes: Sequence[Outcome]
    epoch: str = ""
    first: int = 0
    messages: Sequence[Message] = ()
    trouble: str | None = None
    full: bool = False


class _Rows(NamedTuple):
    """A group that is being appended."""

    outcomes: list[Outcome]
    messages: list[Message]
    receipts: dict[tuple[str, str], tuple[Idempotency, Receipt]]


class Writer:
    """Used in one thread, except for the size and window of ``receipts``.

    ``trim(urgent)`` is called when the log has grown enough.
    """

    def __init__(
        self,
        files: Files,
        mark: Mark,
        bells: Bells,
        retention: Retention,
        clocks: tuple[Callable[[], float], Callable[[], float]],
        trim: Callable[[bool], None],
    ) -> None:
        self._mark = mark
        self._bells = bells
        self._clock, self._steady = clocks
        self._trim = trim
        self._window_s = retention.idempotency_s
        self.receipts = Receipts(retention)
        self._known = 0  # the number of the last receipt that was read
        self._size_looked_at = 0  # the number of messages and receipts when the size was last checked
        self._connection = files.connect()
        self._lock = WriteLock(files.beside(".lock"))
        self._read_receipts()

    def close(self) -> None:
        self._connection.close()
        self._lock.close()

    def append(self, group: Sequence[Publish]) -> Appended:
        """Raises nothing."""
        try:
            with self._lock:
                appended, head = self._append(group)
        except (sqlite3.Error, OSError) as error:
            return self._failed(group, error)
        except Exception:
            logs.log.exception("BUG: a group of %d publishes could not be stored", len(group))
            return Appended([unavailable] * len(group))
        if appended.messages:
            self._bells.ring()
        self._trim_if_due(head)
        return appended

    def _append(self, group: Sequence[Publish]) -> tuple[Appended, int]:
        execute = self._connection.execute
        time_ms, now = int(self._clock() * 1000), self._steady()
        with transaction(self._connection, "BEGIN IMMEDIATE"):
            epoch, before, starts, number = execute(_LOG).fetchone()
            if number != self._known:
                self._read_receipts()
            rows = self._rows(group, epoch, before, time_ms, now)
            head = before + len(rows.messages)
            for start in range(0, len(rows.messages), _ROWS):
                self._insert(rows.messages[start : start + _ROWS])
            if rows.receipts:
                kept = [(number + 1 + n, *_receipt_row(*p, time_ms)) for n, p in enumerate(rows.receipts.values())]
                self._connection.executemany(_INSERT_RECEIPT, kept)
        if rows.messages:
            self._mark.write(Place(epoch, head, starts))
        for idempotency, receipt in rows.receipts.values():
            self.receipts.keep(idempotency, receipt, now)
        self._known = number + len(rows.receipts)
        return Appended(rows.outcomes, epoch, before + 1, rows.messages), head

    def _insert(self, messages: Sequence[Message]) -> None:
        form = _PLAIN if all(map(_NONE.__eq__, map(_rare, messages))) else _ALL
        values: list[object] = []
        for message in messages:
            values += form.values(message)
        self._connection.execute(form.inserts[len(messages)], values)

    def _rows(self, group: Sequence[Publish], epoch: str, head: int, time_ms: int, now: float) -> _Rows:
        outcomes, messages, receipts = rows = _Rows([], [], {})
        for publish in group:
            idempotency = publish.idempotency
            if idempotency is not None:
                earlier = self.receipts.find(idempotency, now) or _repeated(idempotency, receipts)
                if earlier is not None:
                    outcomes.append(earlier)
                    continue
            drafts: Sequence[Message] = publish.drafts
            new: NewDrafts | None = None
            if publish.ids is not None:
                found = new_drafts(publish, lambda item: self.receipts.find(item, now) or _repeated(item, receipts))
                if isinstance(found, RequestError):
                    outcomes.append(found)
                    continue
                new, drafts = found, found.drafts
            for draft in drafts:
                head += 1
                draft.sequence = head
                draft.time_ms = time_ms
            messages += drafts
            if new is None:
                receipt = Receipt(epoch, head, publish.subscribers)
            else:
                receipt = new.receipt(publish, epoch, head)
                for item, own in item_receipts(publish, epoch):
                    receipts[item.publisher, item.key] = item, own
            outcomes.append(receipt)
            if idempotency is not None:
                receipts[idempotency.publisher, idempotency.key] = idempotency, receipt
        return rows

    def _failed(self, group: Sequence[Publish], error: sqlite3.Error | OSError) -> Appended:
        full = isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_FULL
        if full:
            self._trim(True)
        outcomes: list[Outcome] = [_full if full else unavailable] * len(group)
        return Appended(outcomes, trouble=f"the log cannot be written: {error}", full=full)

    def _trim_if_due(self, head: int) -> None:
        written = head + self._known
        if written - self._size_looked_at < _SIZE_EVERY:
            return
        self._size_looked_at = written
        with suppress(sqlite3.Error):
            trim_at, trim_at_pages = self._connection.execute("SELECT trim_at, trim_at_pages FROM log").fetchone()
            if head >= trim_at or pages_used(self._connection) >= trim_at_pages:
                self._trim(False)

    def _read_receipts(self) -> None:
        """Reads receipts that other processes have stored, or this one before a restart."""
        rows = self._connection.execute(
            f"SELECT {_RECEIPT} FROM receipt WHERE number > ? ORDER BY number", (self._known,)
        ).fetchall()
        wall, steady = self._clock(), self._steady()
        for number, sequence, publisher, key, digest, epoch, subscribers, again, time_ms, lifetime_s in rows:
            self._known = number
            age_s = max(0.0, wall - time_ms / 1000)
            if age_s < (lifetime_s or self._window_s):
                counts, indexes = msgspec.json.decode(subscribers), tuple(msgspec.json.decode(again))
                receipt = Receipt(epoch, sequence, counts, again=indexes)
                self.receipts.keep(Idempotency(publisher, key, digest, lifetime_s), receipt, steady - age_s)


def _repeated(
    idempotency: Idempotency, receipts: Mapping[tuple[str, str], tuple[Idempotency, Receipt]]
) -> Receipt | RequestError | None:
    """The answer to an earlier publish with this key in the same group."""
    earlier = receipts.get((idempotency.publisher, idempotency.key))
    return None if earlier is None else answer(earlier[1], earlier[0].digest, idempotency)


def _receipt_row(idempotency: Idempotency, receipt: Receipt, time_ms: int) -> tuple[object, ...]:
    subscribers = msgspec.json.encode(receipt.subscribers).decode()
    again = msgspec.json.encode(receipt.again).decode() if receipt.again else "[]"
    who = idempotency.publisher, idempotency.key, idempotency.digest
    return receipt.sequence, *who, receipt.epoch, subscribers, again, time_ms, idempotency.lifetime_s
