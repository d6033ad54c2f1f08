"""Streams: WebSockets and event streams, from their opening to their end; heartbeats, rotation, expiry, input."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

from ..errors import CloseCode
from ..wire import websocket
from ..wire.encoding import StreamEncoding
from ..wire.negotiation import controls, heartbeat_s, requested_cursor, text_format
from ..wire.request import Request
from ..wire.streams import stream_encoding
from .connection import Connection, State
from .context import Context
from .fanout import Fanout
from .reasons import CloseReason
from .subscriptions import Subscriptions
from .timers import NEVER

_STREAMING = State.STREAMING
_LEAST_ANSWER_S = 20.0  # minimum time to answer a ping, whatever the heartbeat
_HEARTBEAT_SPREAD = 0.8  # a heartbeat is due after 80 to 100 % of the interval, so that not all are due at once


class Streams:
    def __init__(self, context: Context, subscriptions: Subscriptions, fanout: Fanout) -> None:
        self._context = context
        self._sockets = context.sockets
        self._timers = context.timers
        self._limits = context.limits
        self._heartbeat = context.limits.heartbeat_s
        self._subscriptions = subscriptions
        self._fanout = fanout
        self._answer_s = max(2 * self._heartbeat, _LEAST_ANSWER_S)
        context.sockets.on_flushed(self._flushed)
        subscriptions.ghosts.on_ghost(self._supersede)

    # Opening

    def start(self, connection: Connection, request: Request, names: Sequence[str], transport: str) -> None:
        """Opens a stream. Raises RequestError."""
        params = request.params
        grant = connection.grant
        assert grant is not None
        encoding = stream_encoding(
            transport,
            text_format(params, "text"),
            request.fields.version,
            heartbeat_s(params, self._heartbeat),
            controls(params),
        )
        head = encoding.head(request, grant.cors)
        cursor = requested_cursor(request, self._context.history.epoch)
        self._subscriptions.join(connection, request, names, encoding, cursor)
        connection.move(_STREAMING)
        life_s = self._limits.stream_s
        if life_s is not None:
            life_s = max(1.0, life_s * random.uniform(0.8, 1.0))
        life = NEVER if life_s is None else connection.request_started + int(life_s)
        connection.expires_at = min(life, grant.until)
        opening = encoding.open(
            self._subscriptions.cursor(connection),
            self._heartbeat_s(connection),
            None if life_s is None else round(life_s),
            self._context.retry_ms(),
        )
        self._sockets.write_later(connection, head + opening)
        if encoding.pings_early:
            # So a ping is sent at the next tick, well before a client considers the stream silent.
            connection.count_as_idle(int(self._heartbeat_s(connection)), self._timers.now)
        self._set_heartbeat(connection)

    def _flushed(self, connection: Connection) -> None:
        """All unsent bytes were sent: delivers pending messages, and handles input after the request."""
        if connection.state is not _STREAMING:
            return
        self._fanout.catch_up(connection)
        if connection.pending_input and connection.state is _STREAMING:
            self.receive(connection, connection.take_input())

    # Timers

    def _heartbeat_s(self, connection: Connection) -> float:
        encoding = connection.encoding
        asked = None if encoding is None else cast(StreamEncoding, encoding).heartbeat_s
        return self._heartbeat if asked is None else asked

    def _set_heartbeat(self, connection: Connection) -> None:
        interval = max(1, int(self._heartbeat_s(connection) * random.uniform(_HEARTBEAT_SPREAD, 1.0)))
        self._timers.set(connection, min(connection.last_write + interval, connection.expires_at))

    def on_timer(self, connection: Connection) -> None:
        """Sends a heartbeat, ends the stream, or closes the connection of a client that reads nothing."""
        now = self._timers.now
        if now >= connection.expires_at:
            if connection.grant is not None and connection.grant.until <= now:
                self.expire(connection)
                return
            self.rotate(connection, CloseReason.ROTATED, self._context.retry_ms() // 10)
            return
        idle = now - connection.last_write
        if connection.unsent is not None:
            if idle >= self._limits.write_s:
                self._sockets.abort(connection, CloseReason.WRITE_TIMEOUT)
            else:
                self._timers.set(connection, min(now + int(self._heartbeat) + 1, connection.expires_at))
            return
        if idle >= int(self._heartbeat_s(connection) * _HEARTBEAT_SPREAD):
            assert connection.encoding is not None
            if self._answers_no_more(connection):
                self._sockets.abort(connection, CloseReason.PING_TIMEOUT)
                return
            connection.pinged = connection.pinged or now
            connection.count_as_idle(0, now)
            self._sockets.write_later(connection, connection.encoding.ping(self._subscriptions.cursor(connection)))
        self._set_heartbeat(connection)

    # Ends

    def _answers_no_more(self, connection: Connection) -> bool:
        """Whether a client no longer answers pings. Some never do, and on an event stream it cannot: those do not
        count.
        """
        if not (connection.heard and connection.pinged) or self._timers.now < connection.pinged + self._answer_s:
            return False
        return not self._sockets.has_unread(connection)  # the pong may not be read yet

    def _supersede(self, connection: Connection) -> None:
        self.rotate(connection, CloseReason.SUPERSEDED, self._context.retry_ms())
        self._context.schedule_turn()

    def rotate(self, connection: Connection, reason: CloseReason, retry_ms: int) -> None:
        """Sends ``rotate`` and closes the stream; with unsent bytes it is closed without."""
        encoding = connection.encoding
        assert encoding is not None
        control = encoding.rotate(self._subscriptions.cursor(connection), retry_ms)
        self._end(connection, control, CloseCode.SERVICE_RESTART, reason)

    def expire(self, connection: Connection) -> None:
        """Sends ``expired`` and closes the stream: the client needs another token; as ``rotate``."""
        control = cast(StreamEncoding, connection.encoding).expired(self._subscriptions.cursor(connection))
        self._end(connection, control, CloseCode.UNAUTHORIZED, CloseReason.EXPIRED)

    def _end(self, connection: Connection, control: bytes, code: CloseCode, reason: CloseReason) -> None:
        if connection.unsent is not None:
            self._sockets.abort(connection, reason)
            return
        encoding, data = connection.encoding, control
        assert encoding is not None
        if encoding.reads_input:
            if connection.input is None:
                connection.input = websocket.Input(self._limits.websocket_message_bytes)
            connection.input.close(code, reason)
            data += connection.input.replies()
        data += encoding.end
        self._sockets.write_later(connection, data)
        self._sockets.close(connection, reason)

    # Input

    def receive(self, connection: Connection, data: bytes) -> None:
        """Handles input on a stream. WebSocket clients rarely send, and it has no meaning (the 2009 client's NOOP)."""
        encoding = connection.encoding
        if encoding is None or not encoding.reads_input:
            return
        connection.heard, connection.pinged = self._timers.now, 0
        reader = connection.input
        if reader is None:
            if websocket.is_pong(data):
                return
            reader = websocket.Input(self._limits.websocket_message_bytes)
        reader.receive(data)
        replies = reader.replies()
        if replies:
            self._sockets.write_later(connection, replies)
        connection.input = None if reader.quiet else reader
        if reader.closing:
            self._sockets.close(connection, CloseReason.CLIENT_CLOSED)

    def receive_last(self, connection: Connection, data: bytes) -> None:
        """Handles input on a closing connection: it is read, so that the kernel sends no RST, and discarded."""
        reader = connection.input
        if reader is None or reader.finished:
            return
        reader.receive(data)
        reader.replies()  # discards pongs
        if reader.finished:
            self._sockets.shutdown_write(connection)
