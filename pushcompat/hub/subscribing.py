"""Subscribing: a request becomes a connection with channels, an encoding and a cursor; the rest is delivery.

A resume is nothing special: it is a subscription whose cursor is not the head. What the cursor can be:

    absent, empty          from now
    earliest               all that is retained
    of another epoch, or not a cursor at all    UNKNOWN, which is below every floor: the first thing said is ``reset``
    ahead of this process  (another one was faster) waits for the log to get there
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

from .. import logs, policy
from ..errors import CloseCode
from ..limits import Limits
from ..message import CURSOR_WIDTH, parse_cursor
from ..metrics import Metrics
from ..wire import websocket
from ..wire.encoding import LONGPOLL, Encoding
from ..wire.http import Request
from ..wire.longpoll import Answers
from ..wire.streams import stream_encoding
from .answering import Answering
from .channel import Channel
from .clock import Wheel
from .connection import Connection, State
from .fanout import UNKNOWN, Fanout
from .history import History
from .sockets import Sockets

_MOST_CLIENT_CHARACTERS = 64
_POLLING = State.POLLING


class Repeat:
    """A poll that was parsed, to compare the next one with: all of it but its cursor must be the same.

    Header fields are the same for many clients (and half a kilobyte, of a browser), so there is one copy of them. Where
    clients say nothing of their own, the whole is shared; and those who were answered together come back with the same
    cursor, so the line that came last is the line to expect.
    """

    __slots__ = ("after", "before", "cursor", "fields", "hold", "line")

    def __init__(self, before: bytes, after: bytes, fields: bytes, hold: int) -> None:
        self.before = before  # the request line, up to the cursor
        self.after = after  # and behind it
        self.fields = fields
        self.hold = hold
        self.line = b""
        self.cursor = 0

    def cursor_in(self, line: bytes) -> tuple[str, int] | None:
        """The cursor in a request line, where it is this one but for that."""
        at = len(self.before)
        if len(line) != at + CURSOR_WIDTH + len(self.after):
            return None
        if not (line.startswith(self.before) and line.endswith(self.after)):
            return None
        return parse_cursor(line[at : at + CURSOR_WIDTH].decode("latin-1"))


@lru_cache(256)
def _shared_fields(fields: bytes) -> bytes:
    return fields


@lru_cache(256)
def _shared_repeat(before: bytes, after: bytes, fields: bytes, hold: int, epoch: str) -> Repeat:
    """One for all clients that say the same, in one epoch of the log."""
    return Repeat(before, after, fields, hold)


class Subscribing:
    def __init__(
        self,
        sockets: Sockets,
        history: History,
        fanout: Fanout,
        answering: Answering,
        wheel: Wheel[Connection],
        limits: Limits,
        metrics: Metrics,
        origins: Sequence[str],
    ) -> None:
        self._sockets = sockets
        self._history = history
        self._fanout = fanout
        self._wheel = wheel
        self._limits = limits
        self._metrics = metrics
        self._origins = origins
        self._answering = answering
        self._answers: dict[tuple[bytes, bool], Answers] = {}  # by CORS lines and keep-alive
        self._away: deque[tuple[int, Channel]] = deque()  # all channels' pollers that left between two polls
        self.draining = False

    # A request

    def subscribe(self, connection: Connection, request: Request, names: Sequence[str], head: bytes) -> None:
        """Answers the request, or holds it. ``head`` are its bytes. Raises Refused."""
        transport = policy.transport(request)
        policy.check_origin(request, self._origins)
        if transport == LONGPOLL:
            self._poll(connection, request, names, head)
        else:
            self._open_stream(connection, request, names, transport)

    def _open_stream(self, connection: Connection, request: Request, names: Sequence[str], transport: str) -> None:
        encoding = stream_encoding(transport, policy.text_format(request.params, "text"), request.version)
        head = encoding.head(request, policy.cors(request, self._origins))
        self._join(connection, request, names, encoding)
        life = self._limits.stream_s
        if life is not None:
            life = max(1.0, life * random.uniform(0.8, 1.0))
            connection.ends_at = connection.since + int(life)
        opening = encoding.opening(
            self._fanout.cursor(connection.cursor),
            self._limits.heartbeat_s,
            None if life is None else round(life),
            self.retry_ms(),
        )
        connection.move(State.STREAMING)
        self._sockets.cork(connection, head + opening)
        connection.quiet_since = self._wheel.now
        if encoding.pings_early:
            # As if it had been quiet for long: a proxy may hold what came with the head until something comes behind it
            # (Varnish does), so there is a ping at the next tick, well before a client gives the stream up as silent.
            connection.quiet_since -= int(self._limits.heartbeat_s)
        self.set_heartbeat(connection)

    def go_on(self, connection: Connection) -> None:
        """A stream has nothing unsent: on with what it is owed, and with what came in one piece with its request."""
        self._fanout.catch_up(connection)
        if self.draining:
            self.rotate(connection, "stopping", self.retry_ms())
        if connection.inbox and connection.state is State.STREAMING:
            early, connection.inbox = connection.inbox, b""
            self.receive(connection, early)

    def _poll(self, connection: Connection, request: Request, names: Sequence[str], head: bytes) -> None:
        policy.text_format(request.params, "json")
        wait = request.params.get("wait", "")
        hold = self._limits.poll_s
        if wait:
            hold = min(hold, policy.seconds("wait", wait))
        start = policy.start(request)
        self._join(connection, request, names, self._poll_encoding(request))
        ticks = self._ticks(hold) if start or wait else 0
        connection.repeat = self._repeat_of(head, request, start, ticks)
        connection.move(State.POLLING)
        self.hold(connection, ticks)

    def _ticks(self, hold_s: float) -> int:
        """A hold, less a little that differs from client to client: who came at once shall not end at once."""
        return max(1, int(hold_s * random.uniform(0.9, 1.0))) if hold_s >= 1 else 0

    def hold(self, connection: Connection, hold: int) -> None:
        """Answers the poll now if there is something to say, else when there is, at the latest after so many ticks."""
        if self.draining:
            self._answer(connection, retry_ms=self.retry_ms())
            return
        self._fanout.catch_up(connection)
        if connection.state is not State.POLLING:
            return
        if hold < 1:
            self._answer(connection)
            return
        connection.ends_at = connection.since + hold
        self._wheel.set(connection, connection.ends_at)

    def repeat(self, connection: Connection, data: bytes) -> bool:
        """Whether ``data`` is the connection's last poll again but for its cursor; if so, takes it up.

        A poll parsed costs 8 µs more than a poll compared (bench: long-poll).
        """
        repeat = connection.repeat
        assert repeat is not None
        fields = repeat.fields
        line = data[: -len(fields)]
        if not data.endswith(fields) or (line != repeat.line and not self._learn(repeat, line)) or self.draining:
            return False
        channels, cursor, hold = connection.channels, repeat.cursor, repeat.hold
        connection.cursor = cursor
        connection.since = now = self._wheel.now
        connection.move(_POLLING)
        if hold and len(channels) == 1 and channels[0].head <= cursor:
            connection.ends_at = deadline = now + hold  # nothing to say yet: what ``hold`` would come to
            if deadline < connection.bucket:
                self._wheel.set(connection, deadline)
            else:
                connection.deadline = deadline  # what ``set`` would do
        else:
            self.hold(connection, hold)
        return True

    def _repeat_of(self, head: bytes, request: Request, start: str, hold: int) -> Repeat | None:
        """What to compare the next poll with; None where more in it than its cursor could change its meaning."""
        if len(start) != CURSOR_WIDTH or not request.keep_alive or b"last-event-id" in request.headers:
            return None
        line, end, fields = head.partition(b"\r\n")
        before, found, after = line.partition(b"cursor=" + start.encode())
        if not found or b"ursor" in after:  # a second one would count
            return None
        return _shared_repeat(before + b"cursor=", after, _shared_fields(end + fields), hold, self._fanout.epoch)

    def _learn(self, repeat: Repeat, line: bytes) -> bool:
        """Whether it is a repeat from another cursor of this epoch; if so, that is the line to expect from now on."""
        cursor = repeat.cursor_in(line)
        if cursor is None or cursor[0] != self._fanout.epoch:
            return False
        repeat.cursor, repeat.line = cursor[1], line
        return True

    def start_over(self) -> None:
        """The log is another one: nobody's cursor means anything any more."""
        for connection in self._sockets.connections():
            connection.repeat = None
            connection.cursor = UNKNOWN
            connection.forgiven = None

    # Joining and leaving

    def _join(self, connection: Connection, request: Request, names: Sequence[str], encoding: Encoding) -> None:
        client = request.params.get("client", "")[:_MOST_CLIENT_CHARACTERS]
        before = None if connection.encoding is None else connection.encoding.transport
        if before != encoding.transport or tuple(c.name for c in connection.channels) != tuple(names):
            self.leave(connection, "changed")
            self._enter(connection, names, encoding, client)
        connection.encoding = encoding
        connection.client = client
        connection.forgiven = None
        connection.cursor = self._start(connection, policy.start(request))

    def _enter(self, connection: Connection, names: Sequence[str], encoding: Encoding, client: str) -> None:
        channels = tuple(map(self._history.channel, names))
        connection.channels = channels if len(channels) > 1 else channels[0].alone
        for channel in channels:
            channel.subscribers.add(connection)
            if encoding.once and channel.away:
                channel.away.popleft()  # a poller between two polls is back
        connection.joined = self._wheel.now
        self._metrics.connections[encoding.transport] += 1
        if logs.enabled():
            logs.event("subscribe", channels=names, transport=encoding.transport, client=client or None)

    def _start(self, connection: Connection, text: str) -> int:
        if not text:
            return self._history.head
        if text == "earliest":
            floors = {channel: channel.floor for channel in connection.channels}
            if len(floors) > 1:
                connection.forgiven = floors
            return min(floors.values())
        self._metrics.resumes += 1
        cursor = parse_cursor(text)
        if cursor is None or cursor[0] != self._fanout.epoch:
            return UNKNOWN
        return cursor[1]

    def leave(self, connection: Connection, reason: str, *, returns: bool = False) -> None:
        """Ends the subscription. ``returns``: it is a poller that may come back on another connection."""
        channels, encoding = connection.channels, connection.encoding
        if not channels or encoding is None:
            return
        connection.channels = ()
        connection.repeat = None
        for channel in channels:
            channel.subscribers.discard(connection)
            if encoding.once and returns:
                self._stay_away(channel)
            self._history.release(channel)
        self._metrics.connections[encoding.transport] -= 1
        if logs.enabled():
            logs.event(
                "unsubscribe",
                channels=[channel.name for channel in channels],
                transport=encoding.transport,
                client=connection.client or None,
                reason=reason,
                duration=self._wheel.now - connection.joined,
            )

    def _stay_away(self, channel: Channel) -> None:
        """Counts a poller that closes its connection after each answer, until it had time to come back."""
        if channel.away is None:
            channel.away = deque()
        until = self._wheel.now + int(self._limits.poll_grace_s)
        channel.away.append(until)
        self._away.append((until, channel))

    # What the clock asks for

    def tick(self) -> None:
        """Forgets the pollers that were away too long."""
        while self._away and self._away[0][0] <= self._wheel.now:
            channel = self._away.popleft()[1]
            self._fanout.subscribers(channel)
            self._history.release(channel)

    def set_heartbeat(self, connection: Connection) -> None:
        beat = connection.quiet_since + max(1, int(self._limits.heartbeat_s * (0.8 + 0.2 * random.random())))
        self._wheel.set(connection, min(beat, connection.ends_at))

    def beat(self, connection: Connection) -> None:
        """A stream's time has come: to say something, to rotate, or to give up on a reader that takes nothing."""
        now = self._wheel.now
        if now >= connection.ends_at:
            self.rotate(connection, "rotated", self.retry_ms() // 10)
            return
        quiet = now - connection.quiet_since
        if connection.rest is not None:
            if quiet >= self._limits.stall_s:
                self._sockets.lose(connection, "stalled")
                return
            self._wheel.set(connection, min(now + int(self._limits.heartbeat_s) + 1, connection.ends_at))
            return
        if quiet >= int(self._limits.heartbeat_s * 0.8):
            assert connection.encoding is not None
            connection.quiet_since = now
            self._sockets.cork(connection, connection.encoding.ping(self._fanout.cursor_of(connection)))
        self.set_heartbeat(connection)

    def window_ends(self, connection: Connection) -> None:
        self._answer(connection)

    def rotate(self, connection: Connection, reason: str, retry_ms: int) -> None:
        """This request's time is up: says so, and ends it. Whoever does not read is not told."""
        if connection.state is State.POLLING:
            self._answer(connection, retry_ms=retry_ms)
            return
        if connection.state is not State.STREAMING:
            return
        if connection.rest is not None:
            self._sockets.lose(connection, reason)
            return
        assert connection.encoding is not None
        encoding = connection.encoding
        self._sockets.offer(connection, encoding.rotate(self._fanout.cursor_of(connection), retry_ms) + encoding.end)
        self.end_stream(connection, reason)

    def end_stream(self, connection: Connection, reason: str) -> None:
        """Ends a stream in its transport's way."""
        assert connection.encoding is not None
        if connection.encoding.reads_input and connection.state is State.STREAMING:
            if connection.input is None:
                connection.input = websocket.Input(self._limits.websocket_message_bytes)
            connection.input.close(CloseCode.SERVICE_RESTART, reason)
            self._sockets.offer(connection, connection.input.replies())
        self._sockets.end(connection, reason)

    def retry_ms(self) -> int:
        """When to come back after a stream ended: at random, so that a crowd does not come at once."""
        return 500 + int(2500 * random.random())

    # In

    def receive(self, connection: Connection, data: bytes) -> None:
        """A stream's input. WebSockets rarely send, and it means nothing to us (the 2009 client's NOOP)."""
        assert connection.encoding is not None
        if not connection.encoding.reads_input:
            return
        reader = connection.input
        if reader is None:
            if websocket.is_pong(data):
                return
            reader = websocket.Input(self._limits.websocket_message_bytes)
        reader.receive(data)
        replies = reader.replies()
        if replies:
            self._sockets.offer(connection, replies)
        connection.input = None if reader.quiet else reader
        if reader.closing:
            self._sockets.end(connection, f"closed {reader.close_code}")

    # Answers

    def _poll_encoding(self, request: Request) -> Answers:
        key = policy.cors(request, self._origins), request.keep_alive
        encoding = self._answers.get(key)
        if encoding is None:
            encoding = self._answers[key] = Answers(*key)
        return encoding

    def _answer(self, connection: Connection, retry_ms: int | None = None) -> None:
        """Answers a poll with no messages."""
        assert connection.encoding is not None
        cursor = self._fanout.cursor_of(connection)
        encoding = connection.encoding
        data = encoding.ping(cursor) if retry_ms is None else encoding.rotate(cursor, retry_ms)
        self._sockets.offer(connection, data)
        self._answering.answered(connection, encoding.keep_alive)
