"""The messages after a cursor, encoded once.

``after`` creates the bytes for (channel, encoding, first message … head) and keeps them in the channel's cache, keyed
by (encoding, cursor), for all other subscribers that need them. The cache is dropped at the end of the pass, or when
the head moves. Merges of several channels are shared too, in a second cache.

One send has at most ``send_bytes``, and less while many connections have unsent bytes. A subscription that started with
``earliest`` ignores the floors that its channels had then. Its first chunk reaches at least the highest of these: with
a cursor below one of them, a new connection of the client would get ``reset``, since it does not ignore these floors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from operator import attrgetter

from ..message import Message
from ..wire.chunk import Chunk
from ..wire.encoding import Encoding
from .channel import Channel
from .connection import Connection
from .context import Context
from .history import UNKNOWN_POSITION

_sequence = attrgetter("sequence")


class Chunks:
    def __init__(self, context: Context) -> None:
        self._history = context.history
        self._sockets = context.sockets
        self._retry_ms = context.retry_ms
        self._merged: dict[tuple[Encoding, int, int, tuple[Channel, ...]], Chunk] = {}
        self._cached: list[Channel] = []  # channels with a cache but no pass to end it

    def after(self, connection: Connection) -> Chunk | None:
        """The messages that the connection has yet to get, up to the limit of one send; None if there are none."""
        pending, encoding, cursor = connection.channels, connection.encoding, connection.cursor
        assert encoding is not None
        if len(pending) > 1:
            pending = tuple([channel for channel in pending if channel.head > cursor])
        if len(pending) == 1:
            channel = pending[0]
            if channel.head <= cursor:
                return None
            # Check for gaps first: a cached chunk may come from a subscriber that ignores floors.
            if channel.floor > cursor and _has_gap(connection, pending):
                return self._reset(pending, connection, encoding)
            if connection.ignored_floors is not None:
                return self._encode(channel.after(cursor), encoding, _highest(connection.ignored_floors))
            chunk = None if channel.cache is None else channel.cache.get((encoding, cursor))
            return self._chunk(channel, encoding, cursor) if chunk is None else chunk
        if not pending:
            return None
        if _has_gap(connection, pending):
            return self._reset(pending, connection, encoding)
        return self._merge(pending, encoding, cursor, _highest(connection.ignored_floors))

    @property
    def cached(self) -> bool:
        """``end_turn`` may have to drop something."""
        return bool(self._cached or self._merged)

    def forget_merges(self) -> None:
        """A head has moved: the merges are no longer complete."""
        if self._merged:
            self._merged.clear()

    def end_turn(self, passing: bool) -> None:
        """Drops the caches that no current pass needs."""
        for channel in self._cached:
            channel.cache = None
        self._cached.clear()
        if not passing and self._merged:
            self._merged.clear()

    def _chunk(self, channel: Channel, encoding: Encoding, cursor: int) -> Chunk:
        messages = channel.after(cursor)
        if len(channel.subscribers) == 1:
            return self._encode(messages, encoding)  # no other subscriber to share it with
        # All cursors before the first of these messages need the same bytes.
        before = messages[0].sequence - 1 if messages else cursor
        cache = channel.cache
        if cache is None:
            cache = channel.cache = {}
            if not channel.dirty:
                self._cached.append(channel)
        chunk = cache.get((encoding, before))
        if chunk is None:
            chunk = cache[encoding, before] = self._encode(messages, encoding)
        cache[encoding, cursor] = chunk
        return chunk

    def _merge(self, pending: tuple[Channel, ...], encoding: Encoding, cursor: int, reach: int) -> Chunk:
        chunk = self._merged.get((encoding, cursor, reach, pending))
        if chunk is None:
            messages = list(merge(*(channel.after(cursor) for channel in pending), key=_sequence))
            chunk = self._encode(messages, encoding, reach)
            self._merged[encoding, cursor, reach, pending] = chunk
        return chunk

    def _encode(self, messages: Sequence[Message], encoding: Encoding, reach: int = 0) -> Chunk:
        # These channels have no later messages, so the cursor advances to the head of the log.
        head = self._history.head
        if not messages:
            return Chunk(encoding, b"", head, 0)
        fitting = 1 if len(messages) == 1 else self._fitting(messages, reach)
        partial = fitting < len(messages)
        if partial:
            messages = messages[:fitting]
            head = messages[-1].sequence
        data = encoding.messages(messages, self._history.epoch, head)
        return Chunk(encoding, data, head, len(messages), partial)

    def _fitting(self, messages: Sequence[Message], reach: int) -> int:
        """How many of them fit in one send: at least one, and all up to ``reach``."""
        left = self._sockets.send_bytes
        for index, message in enumerate(messages):
            left -= len(message.data)
            if left < 0 and index and messages[index - 1].sequence >= reach:
                return index
        return len(messages)

    def _reset(self, channels: Sequence[Channel], connection: Connection, encoding: Encoding) -> Chunk:
        """The ``reset`` for lost history, with the head as the new position: nothing older is sent.

        One address may have two servers that share no log, by mistake. Each does not know the other's cursors: a poller
        that alternates between them would be answered immediately each time, so it gets a ``retry``.
        """
        head = self._history.head
        names = [channel.name for channel in channels]
        retry_ms = self._retry_ms() if connection.cursor == UNKNOWN_POSITION else None
        data = encoding.reset(self._history.cursor(head), names, self._history.spread_ms(names), retry_ms)
        return Chunk(encoding, data, head, 0, is_reset=True)


def _highest(floors: Mapping[Channel, int] | None) -> int:
    return max(floors.values()) if floors else 0


def _has_gap(connection: Connection, channels: Iterable[Channel]) -> bool:
    """Whether an evicted message was not yet delivered to the connection, except below its ignored floors."""
    cursor, ignored = connection.cursor, connection.ignored_floors or {}
    return any(channel.floor > cursor and channel.floor != ignored.get(channel) for channel in channels)
