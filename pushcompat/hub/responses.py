"""Responses and error responses; then keep-alive or close."""

from __future__ import annotations

from collections.abc import Sequence

from .. import logs
from ..errors import RequestError, TooManyRequests, UpgradeRequired
from ..logs import Event
from ..wire import http, websocket
from ..wire.http import Headers
from ..wire.negotiation import transport
from ..wire.request import Request
from .connection import Connection, State
from .context import Context
from .reasons import CloseReason
from .timers import NEVER

# Looked up once: each poll's response needs them, and looking up an Enum's member costs as much as a call.
_READING_HEAD, _CLOSING, _CLOSED = State.READING_HEAD, State.CLOSING, State.CLOSED
_CLOSE_REASON_BYTES = 120  # a Close frame holds 123 (RFC 6455 §5.5)


class Responses:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._sockets = context.sockets
        self._timers = context.timers
        self._metrics = context.metrics
        context.sockets.on_flushed(self._pipeline)
        self._grace = int(context.limits.poll_grace_s)
        self._idle = int(context.limits.idle_s)
        self._refusals = logs.Limited(Event.REFUSED)
        self._message_bytes = context.limits.websocket_message_bytes

    def send_empty(self, connection: Connection, request: Request, status: int, headers: Headers) -> None:
        """A response that has no body because of its status or method."""
        cors = b"" if connection.grant is None else connection.grant.cors
        keep_alive = self._stays_open(connection, request)
        line = ("Connection", "keep-alive" if keep_alive else "close")
        self._sockets.write(connection, http.head(status, [*headers, line], cors))
        self.sent(connection, keep_alive)

    def refuse(self, connection: Connection, request: Request | None, refused: RequestError) -> None:
        """Sends a problem document. ``request`` is None for unparsable input: the connection is then closed."""
        self._count(connection, refused, request)
        if request is None:
            self._send_problem(connection, None, refused, b"")
            return
        cors = refused.cors
        if not cors:
            cors = self._context.access.cors(request) if connection.grant is None else connection.grant.cors
        if _is_handshake(request, refused):
            self._refuse_websocket(connection, request, refused)
        else:
            self._send_problem(connection, request, refused, cors)

    def sent(self, connection: Connection, keep_alive: bool) -> None:
        """The response is complete: the connection waits for its next request, or closes."""
        state = connection.state
        if state is _CLOSING or state is _CLOSED:
            return
        connection.request = None
        connection.expires_at = NEVER
        grant = connection.grant
        # Publishers keep their connections to a full server. The grant is last: of each poller it is another one, whose
        # memory is not in the cache
        if not keep_alive or (
            not connection.channels and not (grant is not None and grant.publisher) and self._has_no_room(connection)
        ):
            self._sockets.close(connection, CloseReason.RESPONSE_SENT)
            return
        if state is not _READING_HEAD:
            connection.move(_READING_HEAD)
        self._timers.set(connection, self._timers.now + (self._grace if connection.channels else self._idle))
        if connection.pending_input:
            # Not read until then, so that EOF is not seen before all pipelined requests were handled.
            self._sockets.pause(connection)
            if connection.unsent is None:
                self._pipeline(connection)

    def _stays_open(self, connection: Connection, request: Request) -> bool:
        """Whether ``sent``, which is on the hot path and decides for itself, will keep the connection open.

        A proxy that is promised so sends its next request, of any client, into a connection that is being closed.
        """
        if not request.reusable:
            return False
        grant = connection.grant
        publishes = grant is not None and bool(grant.publisher)
        return bool(connection.channels) or publishes or not self._has_no_room(connection)

    def _has_no_room(self, connection: Connection) -> bool:
        return self._sockets.full or self._context.peers.has_too_many(connection.peer)

    def _pipeline(self, connection: Connection) -> None:
        """A response was sent: continues with a pipelined request in the next turn, or waits for the next request."""
        if connection.state is not _READING_HEAD:
            return
        if connection.pending_input:
            self._sockets.pause(connection)
            self._context.pipelined.append(connection)
            self._context.schedule_turn()
        else:
            self._sockets.resume(connection)  # a publisher that has half-closed its connection

    def sent_to(self, connections: Sequence[Connection], keep_alive: bool) -> None:
        """Calls ``sent`` for each of them."""
        for connection in connections:
            try:
                self.sent(connection, keep_alive)
            except Exception:
                self._sockets.log_bug_and_abort(connection)

    def fail(self, connection: Connection, refused: RequestError, keep_alive: bool, cors: bytes) -> None:
        """Sends an error response to a publish that was queued."""
        self._count(connection, refused, None)
        self._sockets.write_later(connection, http.problem(refused, keep_alive=keep_alive, extra=cors))
        self.sent(connection, keep_alive)

    def _send_problem(
        self, connection: Connection, request: Request | None, refused: RequestError, cors: bytes
    ) -> None:
        keep_alive = request is not None and self._stays_open(connection, request)
        document = http.problem(refused, keep_alive=keep_alive, extra=cors)
        if request is not None and request.method == "HEAD":
            document = document[: document.index(http.HEAD_END) + len(http.HEAD_END)]
        self._sockets.write(connection, document)
        self.sent(connection, keep_alive)

    def _refuse_websocket(self, connection: Connection, request: Request, refused: RequestError) -> None:
        """Accepts, then closes with a code for the reason: a page cannot see the status of a refused handshake."""
        connection.input = websocket.Input(self._message_bytes)
        detail = refused.detail.encode()[:_CLOSE_REASON_BYTES].decode(errors="ignore")
        connection.input.close(refused.close_code, detail)
        self._sockets.write(connection, websocket.handshake(request) + connection.input.replies())
        self._sockets.close(connection, CloseReason.REFUSED)

    def _count(self, connection: Connection, refused: RequestError, request: Request | None) -> None:
        self._metrics.refused[refused.reason, str(int(refused.status))] += 1
        if isinstance(refused, TooManyRequests):
            self._metrics.limited[refused.limit] += 1
        if isinstance(refused, UpgradeRequired):
            self._metrics.damaged_handshakes[refused.damage] += 1
        if logs.enabled():
            path = None if request is None else request.path[:200]
            status, address = int(refused.status), connection.client_address
            self._refusals.event(self._timers.now, status=status, path=path, detail=refused.detail, address=address)


def _is_handshake(request: Request, refused: RequestError) -> bool:
    """Whether this is an otherwise valid WebSocket handshake."""
    try:
        return transport(request) == "websocket" and bool(websocket.handshake(request))
    except RequestError:
        return False
