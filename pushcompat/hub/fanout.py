"""Delivery: *send what lies after the cursor, move the cursor*. Live or late, on every transport, this is all there is.

A pass. An update makes its channel dirty; a pass then visits the channel's subscribers, and whoever is visited gets
everything up to the head in one send. So updates that come faster than a pass merge by themselves, and throughput rises
with load. A turn of the loop makes a bounded number of visits, round-robin over the dirty channels. Whoever is owed
more than one send may take is visited again, so a pass that is through has served everyone who reads. Updates that come
while it is under way make it start over then: those it has visited since cost it one comparison.

Encoded once. ``chunk_after`` makes the bytes for (channel, encoding, first message … head) and keeps them in the
channel's memo, where everyone else who needs them finds them under their own cursor. A memo dies with its pass, or when
the head moves. A merge of several channels is shared too, in a memo of its own.

The subscriber's part of the work is a look-up, a ``send`` and four assignments: under 1 µs around a system call of
6 to 8 µs (bench: WebSocket, paced). That is why ``deliver`` is written as it is.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import merge
from operator import attrgetter

from ..limits import Limits
from ..message import EPOCH_WIDTH, Message, format_cursor
from ..metrics import Metrics
from ..wire.encoding import Encoding
from .channel import Channel, Chunk
from .clock import Wheel
from .connection import Connection, State
from .history import History
from .sockets import BLOCKED, Sockets

UNKNOWN = -1  # the cursor of somebody about whom nothing is known: below every floor
# As text: of no log's epoch, so that whoever resumes from it before it heard of the reset will hear of it then.
NOWHERE = format_cursor("0" * EPOCH_WIDTH, 0)
_SHARE = 64  # visits that one channel gets before it is the next one's turn

_POLLING, _STREAMING = State.POLLING, State.STREAMING
_sequence = attrgetter("sequence")


class Fanout:
    def __init__(
        self,
        sockets: Sockets,
        history: History,
        wheel: Wheel[Connection],
        limits: Limits,
        metrics: Metrics,
        on_answered: Callable[[Connection, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = ""
        self._sockets = sockets
        self._history = history
        self._wheel = wheel
        self._limits = limits
        self._metrics = metrics
        self._on_answered = on_answered
        self._time = clock
        self._passes: deque[Channel] = deque()
        self._outgoing: list[tuple[Chunk, list[Connection]]] = []  # what this turn's visits have to send
        self._finished: list[float] = []  # when those passes began whose last sends are made in this turn
        self._behind: deque[Connection] = deque()  # with more to come than one send may take
        self._merged: dict[tuple[Encoding, int, tuple[Channel, ...]], Chunk] = {}
        self._touched: list[Channel] = []  # channels with a memo but no pass to end it
        self._cursor = 0, "", ""  # what was formatted last: sequence number, epoch, text

    # Passes

    @property
    def busy(self) -> bool:
        return bool(self._passes or self._behind)

    def mark(self, channel: Channel) -> None:
        """Says that the channel's head has moved."""
        channel.memo = None
        self._merged.clear()
        if channel.dirty:
            return
        if not channel.subscribers:
            channel.visited = channel.head
            self._history.trim(channel)
            return
        channel.dirty = True
        channel.began = self._time()
        self._passes.append(channel)

    def run(self, visits: int) -> None:
        """Makes about that many visits. Those who are behind have a part of them, however busy the passes are."""
        visits -= self._go_on(visits // 4)
        while self._passes and visits > 0:
            channel = self._passes.popleft()
            visits -= 1 + self._continue_pass(channel, min(visits, _SHARE))
            if channel.dirty:
                self._passes.append(channel)
        self._go_on(visits)
        outgoing, self._outgoing = self._outgoing, []
        for chunk, connections in outgoing:
            self.deliver(chunk, connections)
        if self._finished:
            now = self._time()
            for began in self._finished:
                self._metrics.passes.observe(now - began)
            self._finished.clear()
        self._forget_memos()

    def _go_on(self, visits: int) -> int:
        """Sends more to that many of those who are behind, at most once to each."""
        visits = max(0, min(visits, len(self._behind)))
        for _ in range(visits):
            self.catch_up(self._behind.popleft())
        return visits

    def _continue_pass(self, channel: Channel, visits: int) -> int:
        if channel.to_visit is None:
            channel.target = channel.head
            channel.to_visit = deque(channel.subscribers)
        to_visit = channel.to_visit
        visited = 0
        alone, head = channel.alone, channel.head
        # Most subscribers stand where the one before them stood, and need the same bytes. They are sent to at the end
        # of the turn, many in a row, which costs a tenth less. Not so those who may be visited again in this turn, who
        # follow other channels too, or have more to come: bytes must not overtake each other.
        encoding: Encoding | None = None
        cursor, end = UNKNOWN, UNKNOWN
        together: list[Connection] = []
        while to_visit and visited < visits:
            connection = to_visit.popleft()
            visited += 1
            if connection.cursor >= head or connection.rest is not None:
                continue
            state = connection.state
            if state is not _STREAMING and state is not _POLLING:
                continue
            if connection.cursor != cursor or connection.encoding is not encoding:
                try:
                    chunk = self.chunk_after(connection)
                except Exception:
                    self._sockets.defect(connection)
                    continue
                if chunk is None or chunk.partial or connection.channels is not alone or connection.forgiven:
                    encoding = None
                    if chunk is not None:
                        self.deliver(chunk, (connection,))
                        if chunk.cursor < channel.target:
                            to_visit.append(connection)  # one send was not enough: the pass still owes it the rest
                    continue
                encoding, cursor, end, together = connection.encoding, connection.cursor, chunk.cursor, []
                self._outgoing.append((chunk, together))
            elif connection.channels is not alone:
                self.catch_up(connection)
                continue
            connection.cursor = end
            together.append(connection)
        if not to_visit:
            self._finish_pass(channel)
        return visited

    def _finish_pass(self, channel: Channel) -> None:
        channel.to_visit = channel.memo = None
        channel.visited = channel.target
        channel.dirty = channel.head > channel.target
        self._finished.append(channel.began)
        if channel.dirty:
            channel.began = self._time()
        self._history.trim(channel)
        waiting, channel.waiting = channel.waiting, None
        for publish in waiting or ():
            publish()
        if not channel.dirty:
            self._history.release(channel)

    # One connection

    def catch_up(self, connection: Connection) -> None:
        """Sends what lies after the cursor, as far as one send may reach, and moves the cursor."""
        state = connection.state
        if connection.rest is not None or (state is not _STREAMING and state is not _POLLING):
            return
        chunk = self.chunk_after(connection)
        if chunk is not None:
            self.deliver(chunk, (connection,))

    def deliver(self, chunk: Chunk, connections: Sequence[Connection]) -> None:
        """Sends the same bytes to each; their cursors are at the end of them, whatever the kernel takes."""
        data, cursor, encoding, now = chunk.data, chunk.cursor, chunk.encoding, self._wheel.now
        size, once, partial = len(data), encoding.once, chunk.partial
        for connection in connections:
            connection.cursor = cursor
            if not size:
                continue
            try:
                try:
                    sent = connection.socket.send(data)
                except BLOCKED:
                    sent = 0
                connection.quiet_since = now
                if sent != size:
                    self._sockets.keep(connection, memoryview(data)[sent:])
                elif partial:
                    self._behind.append(connection)
                if once:
                    self._on_answered(connection, encoding.keep_alive)
            except OSError:
                self._sockets.lose(connection, "reset")
            except Exception:
                self._sockets.defect(connection)
        count = len(connections)
        self._metrics.delivered(encoding.transport, count * chunk.count, count * size)
        if chunk.is_reset:
            self._metrics.resets += count

    def stands(self, connection: Connection) -> int:
        """Where the connection stands once all that was sent is read: for whoever is caught up, that is the head."""
        if any(channel.head > connection.cursor for channel in connection.channels):
            return connection.cursor
        return max(connection.cursor, self._history.head)

    def cursor_of(self, connection: Connection) -> str:
        return self.cursor(self.stands(connection))

    def cursor(self, sequence: int) -> str:
        known, epoch, text = self._cursor
        if sequence != known or epoch is not self.epoch:
            text = NOWHERE if sequence == UNKNOWN else format_cursor(self.epoch, sequence)
            self._cursor = sequence, self.epoch, text
        return text

    # Chunks

    def chunk_after(self, connection: Connection) -> Chunk | None:
        """All that the connection has yet to see, encoded, up to the limit of one send; None where that is nothing."""
        owing, encoding, cursor = connection.channels, connection.encoding, connection.cursor
        assert encoding is not None
        if len(owing) > 1:
            owing = tuple(channel for channel in owing if channel.head > cursor)
        if len(owing) == 1:
            channel = owing[0]
            if channel.head <= cursor:
                return None
            # First of all: what is in the memo may have been made for somebody who is forgiven.
            if channel.floor > cursor and _has_hole(connection, owing):
                return self._reset(owing, encoding)
            chunk = None if channel.memo is None else channel.memo.get((encoding, cursor))
            return self._chunk(channel, encoding, cursor) if chunk is None else chunk
        if not owing:
            return None
        if _has_hole(connection, owing):
            return self._reset(owing, encoding)
        return self._merge(owing, encoding, cursor)

    def _chunk(self, channel: Channel, encoding: Encoding, cursor: int) -> Chunk:
        messages = channel.after(cursor)
        if len(channel.subscribers) == 1:
            return self._encode(messages, encoding)  # nobody to share it with
        # Whoever stands anywhere before the first of these messages is sent the same bytes.
        before = messages[0].sequence - 1 if messages else cursor
        if channel.memo is None:
            channel.memo = {}
            if not channel.dirty:
                self._touched.append(channel)
        chunk = channel.memo.get((encoding, before))
        if chunk is None:
            chunk = channel.memo[encoding, before] = self._encode(messages, encoding)
        channel.memo[encoding, cursor] = chunk
        return chunk

    def _merge(self, owing: tuple[Channel, ...], encoding: Encoding, cursor: int) -> Chunk:
        chunk = self._merged.get((encoding, cursor, owing))
        if chunk is None:
            messages = list(merge(*(channel.after(cursor) for channel in owing), key=_sequence))
            chunk = self._encode(messages, encoding)
            self._merged[encoding, cursor, owing] = chunk
        return chunk

    def _encode(self, messages: Sequence[Message], encoding: Encoding) -> Chunk:
        # Its channels hold nothing between their last message and the head of the log, so that is where it leads.
        head = self._history.head
        if not messages:
            return Chunk(encoding, b"", head, 0)
        fitting = 1 if len(messages) == 1 else self._fitting(messages)
        partial = fitting < len(messages)
        if partial:
            messages = messages[:fitting]
            head = messages[-1].sequence
        data = encoding.messages(messages, self.epoch, head)
        return Chunk(encoding, data, head, len(messages), partial=partial)

    def _fitting(self, messages: Sequence[Message]) -> int:
        """How many of them one send may take: at least one."""
        left = self._limits.send_bytes
        for index, message in enumerate(messages):
            left -= len(message.data)
            if left < 0:
                return max(1, index)
        return len(messages)

    def _reset(self, channels: Sequence[Channel], encoding: Encoding) -> Chunk:
        """Says that history is gone, and goes on from the head: nothing older is sent."""
        head = self._history.head
        names = [channel.name for channel in channels]
        data = encoding.reset(format_cursor(self.epoch, head), names, self.spread_ms(channels))
        return Chunk(encoding, data, head, 0, is_reset=True)

    def spread_ms(self, channels: Iterable[Channel]) -> int | None:
        """The window in which these channels' subscribers should spread their refetches; None: no need to."""
        rate = self._limits.refetch_rate
        if rate is None:
            return None
        return math.ceil(sum(self.subscribers(channel) for channel in channels) / rate * 1000)

    def subscribers(self, channel: Channel | None) -> int:
        """Everyone who follows the channel, pollers between two polls included."""
        if channel is None:
            return 0
        away = channel.away
        while away and away[0] <= self._wheel.now:
            away.popleft()
        return len(channel.subscribers) + (len(away) if away else 0)

    # Memos

    def _forget_memos(self) -> None:
        """Ends what no pass under way still needs."""
        for channel in self._touched:
            channel.memo = None
        self._touched.clear()
        if not self._passes:
            self._merged.clear()


def _has_hole(connection: Connection, channels: Iterable[Channel]) -> bool:
    """Whether something was evicted that the connection has yet to see; what was gone before it came is forgiven."""
    cursor, forgiven = connection.cursor, connection.forgiven or {}
    return any(channel.floor > cursor and channel.floor != forgiven.get(channel) for channel in channels)
