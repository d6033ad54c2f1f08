"""Delivery: *send what is after the cursor, move the cursor*. It is the only delivery path, live or resumed, for all
transports.

A pass. A message makes its channel dirty; a pass then visits the channel's subscribers, and each visited subscriber
gets everything up to the head in one send. So messages that arrive faster than passes are coalesced, and throughput
rises with load. A turn of the loop makes a bounded number of visits, round-robin over the dirty channels. A subscriber
with more than one send of backlog is visited again, so after a pass all subscribers that read are up to date. Messages
that arrive during a pass start another one after it: a subscriber that is already up to date then costs one comparison.

A visit moves the cursor, and notes the bytes to send. They are sent at the end of the turn, in one loop, which costs a
tenth less. A subscriber that may be visited twice in a turn (it has several channels, or a backlog larger than one
send) is sent to immediately, to preserve the order of bytes.

The subscriber's part of the work is a look-up, a ``send`` and four assignments: under 1 µs around a system call of
6 to 8 µs (bench: WebSocket, paced). That is why ``_visit`` is written as it is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from ..wire.chunk import Chunk
from ..wire.encoding import Encoding
from .channel import Channel
from .chunks import Chunks
from .connection import Connection, State
from .context import Context
from .history import UNKNOWN_POSITION
from .responses import Responses

_VISITS_PER_CHANNEL = 64  # before the next channel is visited
_SENDS_IN_A_ROW = 64  # before the time is checked

_POLLING, _STREAMING = State.POLLING, State.STREAMING


class Fanout:
    """A callback registered with ``on_pass_end`` is called with the channel whenever a pass has ended."""

    def __init__(self, context: Context, responses: Responses, clock: Callable[[], float] = time.monotonic) -> None:
        self._sockets = context.sockets
        self._history = context.history
        self._metrics = context.metrics
        self._responses = responses
        self._chunks = Chunks(context)
        self._clock = clock
        self._pass_end: Callable[[Channel], None] | None = None
        self._passes: deque[Channel] = deque()
        self._behind: deque[Connection] = deque()  # with a backlog larger than one send
        self._outgoing: list[tuple[Chunk, list[Connection]]] = []  # sends collected in this turn
        self._outgoing_count = 0
        self._ended: list[float] = []  # start times of the passes that end with these sends

    # Passes

    @property
    def busy(self) -> bool:
        return bool(self._passes or self._behind)

    @property
    def active(self) -> bool:
        """There is work for this turn."""
        return bool(self._passes or self._behind or self._chunks.cached)

    def on_pass_end(self, callback: Callable[[Channel], None]) -> None:
        self._pass_end = callback

    def mark_dirty(self, channel: Channel) -> None:
        """Notes that the channel's head has moved."""
        if not channel.subscribers and not channel.dirty:
            channel.skip_pass()
            self._history.trim(channel)
            return
        channel.cache = None
        self._chunks.forget_merges()
        if channel.dirty:
            return
        channel.begin_pass(self._clock())
        self._passes.append(channel)

    def run(self, visits: int, until: float) -> None:
        """Makes about ``visits`` visits, at most a quarter to connections with a backlog; stops at ``until``."""
        visits -= self._visit_behind(visits // 4)
        passes = self._passes
        while passes and visits > 0:
            channel = passes.popleft()
            visits -= 1 + self._continue_pass(channel, min(visits, _VISITS_PER_CHANNEL))
            if channel.dirty:
                passes.append(channel)
            if self._outgoing_count >= _SENDS_IN_A_ROW:
                self._send()
                if self._clock() > until:
                    break
        self._visit_behind(visits)
        self._send()
        self._chunks.end_turn(passing=bool(passes))

    def _visit_behind(self, visits: int) -> int:
        """Visits up to ``visits`` connections with a backlog, each at most once."""
        visits = max(0, min(visits, len(self._behind)))
        for _ in range(visits):
            self.catch_up(self._behind.popleft())
        return visits

    def _continue_pass(self, channel: Channel, visits: int) -> int:
        waiting = channel.to_visit
        if waiting is None:
            channel.pass_head = channel.head
            if len(channel.subscribers) > visits:
                waiting = channel.to_visit = deque(channel.subscribers)
        if waiting is None:
            batch = list(channel.subscribers)
        else:
            batch = [waiting.popleft() for _ in range(min(visits, len(waiting)))]
        unfinished = self._visit(channel, batch)
        if unfinished:
            if waiting is None:
                waiting = channel.to_visit = deque()
            waiting += unfinished
        if not waiting:
            self._end_pass(channel)
        return len(batch)

    def _visit(self, channel: Channel, batch: Sequence[Connection]) -> list[Connection]:
        """Visits each of them; returns those that need another visit in this pass."""
        unfinished: list[Connection] = []
        alone, head = channel.as_tuple, channel.head
        # Consecutive subscribers usually have the same cursor, and need the same bytes.
        encoding: Encoding | None = None
        cursor, end = UNKNOWN_POSITION, UNKNOWN_POSITION
        together: list[Connection] = []
        for connection in batch:
            if connection.cursor >= head or connection.unsent is not None:
                continue
            state = connection.state
            if state is not _STREAMING and state is not _POLLING:
                continue
            if connection.channels is not alone or connection.ignored_floors is not None:
                self._visit_alone(channel, connection, unfinished)
                continue
            if connection.cursor != cursor or connection.encoding is not encoding:
                chunk = self._chunk_after(connection)
                if chunk is None:
                    continue
                if chunk.partial:
                    self._deliver(chunk, (connection,))
                    unfinished.append(connection)
                    continue
                encoding, cursor, end, together = connection.encoding, connection.cursor, chunk.cursor, []
                self._outgoing.append((chunk, together))
            connection.cursor = end
            together.append(connection)
        self._outgoing_count += len(batch)
        return unfinished

    def _visit_alone(self, channel: Channel, connection: Connection, unfinished: list[Connection]) -> None:
        chunk = self._deliver_next(connection)
        if chunk is not None and chunk.cursor < channel.pass_head:
            unfinished.append(connection)  # one send was not enough

    def _end_pass(self, channel: Channel) -> None:
        self._ended.append(channel.pass_started)
        channel.end_pass(self._clock())
        self._history.trim(channel)
        if self._pass_end is not None:
            self._pass_end(channel)
        if not channel.dirty and not channel.subscribers:
            self._history.discard_if_idle(channel)

    # One connection

    def catch_up(self, connection: Connection) -> None:
        """Sends the messages after the cursor, up to the limit of one send, and moves the cursor."""
        state = connection.state
        if connection.unsent is not None or (state is not _STREAMING and state is not _POLLING):
            return
        self._deliver_next(connection)

    def _deliver_next(self, connection: Connection) -> Chunk | None:
        chunk = self._chunk_after(connection)
        if chunk is not None:
            self._deliver(chunk, (connection,))
            connection.ignored_floors = None  # the chunk reaches beyond all of them
        return chunk

    def _chunk_after(self, connection: Connection) -> Chunk | None:
        try:
            return self._chunks.after(connection)
        except Exception:
            self._sockets.log_bug_and_abort(connection)
            return None

    # Sending

    def _send(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        self._outgoing_count = 0
        for chunk, connections in outgoing:
            self._deliver(chunk, connections)
        if self._ended:
            now = self._clock()
            for started in self._ended:
                self._metrics.delivery_pass_duration_seconds.observe(now - started)
            self._ended.clear()

    def _deliver(self, chunk: Chunk, connections: Sequence[Connection]) -> None:
        """Sends the chunk to each, and moves their cursors to its end, even if the kernel accepts only a part."""
        cursor, encoding, count = chunk.cursor, chunk.encoding, len(connections)
        for connection in connections:
            connection.cursor = cursor
        if not chunk.data:
            return
        self._sockets.broadcast(connections, chunk.data)
        if encoding.single_response:
            self._responses.sent_to(connections, encoding.keep_alive)
        elif chunk.partial:
            self._behind.extend(c for c in connections if c.unsent is None)
        self._metrics.delivered(encoding.transport, count * chunk.count, count * len(chunk.data))
        if chunk.is_reset:
            self._metrics.resets += count
