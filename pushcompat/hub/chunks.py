"""What lies after a cursor, encoded once.

``after`` makes the bytes for (channel, encoding, first message … head) and keeps them in the channel's cache, where
every other subscriber that needs them finds them under its own cursor. The cache is dropped at the end of the pass, or
when the head moves. A merge of several channels is shared too, in a cache of its own.

One send takes at most ``send_bytes``, and less while many connections have bytes unsent. A subscription that began with
``earliest`` ignores the floors that its channels had then. Its first chunk reaches at least the highest of these, since
a cursor below one of them would be answered with ``reset`` by whoever does not know what was ignored.
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
        """All that the connection has yet to get, up to the limit of one send; None where that is nothing."""
        owing, encoding, cursor = connection.channels, connection.encoding, connection.cursor
        assert encoding is not None
        if len(owing) > 1:
            owing = tuple([channel for channel in owing if channel.head > cursor])
        if len(owing) == 1:
            channel = owing[0]
            if channel.head <= cursor:
                return None
            # First: what is in the cache may have been made for a subscriber that ignores floors.
            if channel.floor > cursor and _has_gap(connection, owing):
                return self._reset(owing, connection, encoding)
            if connection.ignored_floors is not None:
                return self._encode(channel.after(cursor), encoding, _highest(connection.ignored_floors))
            chunk = None if channel.cache is None else channel.cache.get((encoding, cursor))
            return self._chunk(channel, encoding, cursor) if chunk is None else chunk
        if not owing:
            return None
        if _has_gap(connection, owing):
            return self._reset(owing, connection, encoding)
        return self._merge(owing, encoding, cursor, _highest(connection.ignored_floors))

    @property
    def cached(self) -> bool:
        """There is something that ``end_turn`` may have to drop."""
        return bool(self._cached or self._merged)

    def forget_merges(self) -> None:
        """A head has moved: no merge is the whole of what its subscribers need."""
        if self._merged:
            self._merged.clear()

    def end_turn(self, passing: bool) -> None:
        """Drops what no pass under way still needs."""
        for channel in self._cached:
            channel.cache = None
        self._cached.clear()
        if not passing and self._merged:
            self._merged.clear()

    def _chunk(self, channel: Channel, encoding: Encoding, cursor: int) -> Chunk:
        messages = channel.after(cursor)
        if len(channel.subscribers) == 1:
            return self._encode(messages, encoding)  # there is no other subscriber to share it with
        # Whoever stands anywhere before the first of these messages is sent the same bytes.
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

    def _merge(self, owing: tuple[Channel, ...], encoding: Encoding, cursor: int, reach: int) -> Chunk:
        chunk = self._merged.get((encoding, cursor, reach, owing))
        if chunk is None:
            messages = list(merge(*(channel.after(cursor) for channel in owing), key=_sequence))
            chunk = self._encode(messages, encoding, reach)
            self._merged[encoding, cursor, reach, owing] = chunk
        return chunk

    def _encode(self, messages: Sequence[Message], encoding: Encoding, reach: int = 0) -> Chunk:
        # These channels hold nothing between their last message and the head of the log: that is where it leads.
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
        """How many of them one send may take: at least one, and all up to ``reach``."""
        left = self._sockets.send_bytes
        for index, message in enumerate(messages):
            left -= len(message.data)
            if left < 0 and index and messages[index - 1].sequence >= reach:
                return index
        return len(messages)

    def _reset(self, channels: Sequence[Channel], connection: Connection, encoding: Encoding) -> Chunk:
        """Says that history is gone, and goes on from the head: nothing older is sent.

        Behind one address there may be two servers that share no log, by mistake. To each of them the other's cursors
        are unknown: a poller that goes to and fro would be answered at once each time, and so is told to wait.
        """
        head = self._history.head
        names = [channel.name for channel in channels]
        retry_ms = self._retry_ms() if connection.cursor == UNKNOWN_POSITION else None
        data = encoding.reset(self._history.cursor(head), names, self._history.spread_ms(names), retry_ms)
        return Chunk(encoding, data, head, 0, is_reset=True)


def _highest(floors: Mapping[Channel, int] | None) -> int:
    return max(floors.values()) if floors else 0


def _has_gap(connection: Connection, channels: Iterable[Channel]) -> bool:
    """Whether something was evicted that the connection has yet to get and did not say it can do without."""
    cursor, ignored = connection.cursor, connection.ignored_floors or {}
    return any(channel.floor > cursor and channel.floor != ignored.get(channel) for channel in channels)
