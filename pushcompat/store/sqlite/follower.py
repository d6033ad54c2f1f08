"""Following: reads committed messages in a thread, and passes them to the event loop in order.

Messages that this process appends are passed on as the objects in memory, if they directly follow the follower's
position (``offer``). All others are read from the database: when the bell rings, and every ``_LOOK_S`` in case it did
not. One batch at a time is passed to the loop, without messages that the loop already has.

Each read is one transaction, which also reads the epoch and the highest number that was ever evicted. A follower below
that cannot know what it has missed, whatever its channels' floors are, and reloads the log (``Lost``).
tests/models/test_sqlite_floors.py shows the gaps that would occur otherwise.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from ...message import Message
from ..base import Lost, News
from .bells import Bell
from .files import Files, transaction
from .start import COLUMNS, HEAD

_LOOK_S = 0.25
_ROWS = 256  # read in one query, and handled in one turn of the loop
_REPLACED = "the file of the log was removed or replaced while the server runs: restart the server"
_GLANCE = f"SELECT epoch, {HEAD}, evicted FROM log"
_READ = f"SELECT {COLUMNS} FROM message WHERE sequence > ? ORDER BY sequence LIMIT {_ROWS}"


class _Batch(NamedTuple):
    """All messages up to ``upto``. Missing numbers were replaced, or have expired."""

    upto: int
    messages: list[Message]


class Follower:
    """Used in the event loop; ``_run`` and the methods that it calls run in the thread. ``position``: see ``follow``.

    ``ended`` raises Lost, or an exception of ``news``. ``problem`` is a message for the operator.
    """

    def __init__(self, files: Files, inode: int | None, after: int, epoch: str, news: News) -> None:
        """``inode``: the log's, which it had when the store was opened."""
        self.position = after
        self.problem: str | None = None
        self.replaced = False  # the file was replaced: messages appended now would be lost
        self._files = files
        self._inode = inode
        self._epoch = epoch
        self._news = news
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.gone = asyncio.Event()  # the thread has ended
        self._bell = _bell(files)
        self._closed = False
        self._taken = threading.Event()
        threading.Thread(target=self._run, name="pushcompat follower", daemon=True).start()

    @property
    def bell_name(self) -> str | None:
        return None if self._bell is None else self._bell.name

    def close(self) -> None:
        """Stops passing messages on. ``gone`` is set when the thread has ended."""
        self._closed = True
        self._taken.set()
        if self._bell is not None:
            self._bell.ring()

    def offer(self, epoch: str, first: int, messages: Sequence[Message]) -> None:
        """Passes on messages that this process has appended."""
        if first == self.position + 1 and epoch == self._epoch:
            self._hand_over(messages[-1].sequence, messages)
        elif first > self.position and self._bell is not None:
            self._bell.ring()

    def _take(self, batch: _Batch) -> None:
        messages, position = batch.messages, self.position
        if messages and messages[0].sequence <= position:
            messages = [message for message in messages if message.sequence > position]
        if batch.upto > position:
            self._hand_over(batch.upto, messages)
        self._taken.set()

    def _hand_over(self, upto: int, messages: Sequence[Message]) -> None:
        if self._closed:
            return
        self.position = upto
        try:
            if messages:
                self._news(messages)
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def _go(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None
        self.gone.set()

    # The thread

    def _run(self) -> None:
        bell, connection = self._bell, None
        try:
            while not self._closed:
                try:
                    self.replaced = self._files.inode() != self._inode
                    if not self.replaced:
                        connection = connection or self._files.connect()
                        self._read_on(connection)
                    self.problem = _REPLACED if self.replaced else None
                except sqlite3.Error as error:
                    self.replaced = self._files.inode() != self._inode  # since it was looked at
                    self.problem = _REPLACED if self.replaced else f"the log cannot be read: {error}"
                if bell is None:
                    time.sleep(_LOOK_S)
                else:
                    bell.wait(_LOOK_S)
        except Exception as error:
            self._call(partial(self._end, error))
        finally:
            if connection is not None:
                connection.close()
            self._call(self._go)

    def _read_on(self, connection: sqlite3.Connection) -> None:
        while not self._closed:
            batch = self._read(connection, self.position)
            if batch is None:
                break
            self._taken.clear()
            self._call(partial(self._take, batch))
            self._taken.wait()

    def _read(self, connection: sqlite3.Connection, position: int) -> _Batch | None:
        if self._head(connection, position) == position:
            return None
        with transaction(connection):
            head = self._head(connection, position)
            rows = connection.execute(_READ, (position,)).fetchall()
        messages = [message_of(row) for row in rows]
        return _Batch(head if len(rows) < _ROWS else messages[-1].sequence, messages)

    def _head(self, connection: sqlite3.Connection, position: int) -> int:
        epoch, head, evicted = connection.execute(_GLANCE).fetchone()
        if epoch != self._epoch or not evicted <= position <= head:
            raise Lost
        return int(head)

    def _call(self, back: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(back)


def message_of(row: tuple[Any, ...]) -> Message:
    channel, data, json, *rest = row
    return Message(channel, data, json == 1, *rest)


def _bell(files: Files) -> Bell | None:
    """None if the file system has no FIFOs: the follower then only polls."""
    try:
        return Bell(files.beside(".bells"))
    except OSError:
        return None
