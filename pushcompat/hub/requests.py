"""Requests: reads each complete head, authorises it, and routes the request.

    GET      subscribe; or list     HEAD     the head of GET's response
    POST     publish                OPTIONS  CORS preflight

Requests outside /channels are handed to Tornado. A slow or endless head costs a buffer of at most ``head_bytes`` for at
most ``head_s``; it is not parsed before its blank line.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from ..access.grant import Grant
from ..access.origins import ALLOW, preflight
from ..errors import (
    BadRequest,
    Forbidden,
    HeadTooLarge,
    MethodNotAllowed,
    NotFound,
    RequestError,
    RequestTimeout,
    Unavailable,
)
from ..wire.encoding import CONTENT_TYPES, LONGPOLL
from ..wire.http import CONTINUE
from ..wire.names import channel_names
from ..wire.negotiation import transport
from ..wire.request import HEAD_END, Request, may_be_http, not_http, parse_head
from .admission import Admission
from .connection import Connection, State
from .context import Context
from .listing import Listing
from .peers import Peer
from .polls import Polls
from .publishing import Publishing
from .reasons import CloseReason
from .responses import Responses
from .streams import Streams
from .unproven import Unproven

HandOver = Callable[[socket.socket, Peer, bytes, bool], None]

_SUBSCRIBES = frozenset(("transport", "cursor", "lastEventId", "wait", "format", "client", "token"))
_BARE_LF_END = b"\n\n"  # of a head with bare LF line ends, which the parser rejects


class Requests:
    def __init__(
        self,
        context: Context,
        hand_over: HandOver,
        responses: Responses,
        streams: Streams,
        polls: Polls,
        publishing: Publishing,
        listing: Listing,
        admission: Admission,
    ) -> None:
        self._sockets = context.sockets
        self._timers = context.timers
        self._limits = context.limits
        self._access = context.access
        self._peers = context.peers
        self._base = context.base
        self._below = f"{context.base}/"
        self._hand_over = hand_over
        self._responses = responses
        self._streams = streams
        self._polls = polls
        self._publishing = publishing
        self._listing = listing
        self._unproven = Unproven(self._make_room)
        context.sockets.on_end(self._ended)
        self._admission = admission
        admission.on_admitted(self._start)
        self._methods = {"GET": self._get, "HEAD": self._get, "POST": self._post, "OPTIONS": self._options}

    # Heads

    def receive(self, connection: Connection, data: bytes) -> None:
        """Handles input of a connection that waits for a request head."""
        started = bool(connection.pending_input)
        if started:
            data = connection.pending_input + data
        elif data.startswith(b"POST "):
            if connection.admin and self._publishing.repeat(connection, data):
                return
        elif connection.poll_template is not None and self._polls.repeat(connection, data):
            return
        if not started:
            data = data.lstrip(b"\r\n")  # RFC 9112 §2.2: empty lines before a request are ignored
            if not data:
                return
            connection.request_started = self._timers.now
        most = self._limits.head_bytes
        end = _head_end(data)
        if 0 < end <= most:
            connection.pending_input = data[end:]
            self._route(connection, data[:end])
        elif len(data) > most:
            self._refuse(connection, HeadTooLarge(f"the request's head exceeds the limit of {most} bytes"))
        elif not may_be_http(data):
            self._refuse(connection, not_http(data))
        else:
            connection.pending_input = data
            if not started:
                self._timers.set(connection, self._timers.now + int(self._limits.head_s))

    def wait(self, connection: Connection) -> None:
        """Waits for the next request of a connection that has no subscription."""
        self._timers.set(connection, self._timers.now + int(self._limits.idle_s))

    def resume(self, connection: Connection) -> None:
        """Continues with a pipelined request, once the response before it was sent."""
        self._sockets.resume(connection)
        received = connection.take_input()
        if received:
            self.receive(connection, received)

    def on_timer(self, connection: Connection) -> None:
        """The head timeout or the idle timeout has expired."""
        if self._sockets.is_reading(connection):
            return
        if connection.pending_input:
            late = RequestTimeout(f"the request's head was not received within {self._limits.head_s:g} s")
            self._refuse(connection, late)
        elif connection.channels:
            self._polls.leave(connection)
            self._timers.set(connection, self._timers.now + int(self._limits.idle_s))
        else:
            self._sockets.abort(connection, CloseReason.IDLE_TIMEOUT)

    def _refuse(self, connection: Connection, refused: RequestError) -> None:
        self._responses.refuse(connection, None, refused)

    # Routing

    def _route(self, connection: Connection, head: bytes) -> None:
        try:
            request = parse_head(head)
        except RequestError as refused:
            self._refuse(connection, refused)
            return
        path = request.path
        if not path.startswith(self._below) and path != self._base:
            self._give_away(connection, head)
            return
        connection.grant = None
        if connection.peer.proxied:
            request.proxied = True
            if request.fields.reports_client or connection.peer.limited:
                connection.peer = self._peers.attribute(connection.peer, request.reports)
        try:
            method = self._methods.get(request.method)
            if method is None:
                raise MethodNotAllowed(
                    f"method {request.method} not allowed; use GET to subscribe, POST to publish", ALLOW
                )
            method(connection, request, head)
        except RequestError as refused:
            self._responses.refuse(connection, request, refused)

    def _give_away(self, connection: Connection, head: bytes) -> None:
        self._polls.leave(connection, may_return=True)
        received = head + connection.take_input()
        self._hand_over(self._sockets.detach(connection), connection.peer, received, connection.admin)

    def _names(self, request: Request) -> tuple[str, ...]:
        """The channels in the path; empty for /channels itself."""
        text = request.path[len(self._base) + 1 :]
        return channel_names(text, self._limits.max_channels) if text else ()

    def _named(self, request: Request) -> tuple[str, ...]:
        names = self._names(request)
        if not names:
            raise NotFound(f"no channel given; use GET {self._base}/NAME[,NAME…]")
        return names

    def _asks_for_list(self, request: Request) -> bool:
        """Whether the request is for the list: no channel is named, and no parameter of a subscription is given."""
        if len(request.path) > len(self._below) or not _SUBSCRIBES.isdisjoint(request.params):
            return False
        return transport(request) == LONGPOLL

    # Methods

    def _get(self, connection: Connection, request: Request, head: bytes) -> None:
        """GET and HEAD."""
        if request.has_body and request.method == "GET":
            raise BadRequest("GET must not have a body; use POST to publish")
        names: Sequence[str] = ()
        if self._asks_for_list(request):
            _check_listener(connection)
            grant: Grant | None = self._access.admit_listing(request)
        else:
            names = self._named(request)
            grant = self._access.admit(request, names)
            if grant is None:
                self._admission.wait(connection, request, names, head)
                return
        connection.grant = grant
        self._start(connection, request, names, head)

    def _start(self, connection: Connection, request: Request, names: Sequence[str], head: bytes) -> None:
        """Answers a request that was admitted. Without names: with the list. Raises RequestError."""
        asked = transport(request)
        if request.method == "HEAD":
            self._responses.send_empty(connection, request, 200, [("Content-Type", CONTENT_TYPES[asked])])
        elif not names:
            self._listing.start(connection, request)
        elif asked == LONGPOLL:
            self._polls.start(connection, request, names, head)
        else:
            self._streams.start(connection, request, names, asked)

    def _options(self, connection: Connection, request: Request, head: bytes) -> None:
        connection.grant = self._access.preflight(request)
        asks = b"origin" in request.fields.headers and self._access.cross_origin
        headers = [("Allow", ALLOW), *(preflight(request) if asks else ())]
        self._responses.send_empty(connection, request, 204, headers)

    def _post(self, connection: Connection, request: Request, head: bytes) -> None:
        # Reject by the head, before the body is read.
        _check_listener(connection)
        names = self._names(request)
        grant = connection.grant = self._access.admit(request, names)
        if grant is not None:
            grant.check_publish(names)
        request.check_length(self._publishing.body_limit(names))
        self._publishing.learn(request, head, grant)
        received = connection.take_input()
        if not received and request.has_body and request.expects_continue:
            self._sockets.write(connection, CONTINUE)
        connection.request = request
        self._take_body(connection, request, names, received)
        if not request.complete and connection.state is State.READING_HEAD:
            if grant is None or not grant.publisher:
                self._unproven.add(connection)
            connection.move(State.READING_BODY)
            self._timers.set(connection, self._timers.now + int(self._limits.body_s))

    # Bodies

    def receive_body(self, connection: Connection, data: bytes) -> None:
        request = connection.request
        assert request is not None
        try:
            self._take_body(connection, request, self._names(request), data)
        except RequestError as refused:
            self._responses.refuse(connection, request, refused)

    def _take_body(self, connection: Connection, request: Request, names: Sequence[str], data: bytes) -> None:
        """Adds to the body, and publishes when it is complete. The bytes after its end are kept as input."""
        connection.pending_input = request.feed(data)
        if request.fields.chunked:
            request.check_length(self._publishing.body_limit(names))
        if request.complete:
            self._unproven.remove(connection)
            grant = connection.grant
            if grant is None or grant.until <= self._timers.now:  # signed, or its key was revoked in the meantime
                grant = connection.grant = self._access.admit_body(request)
            self._publishing.submit(connection, request, names, grant)

    def _make_room(self, connection: Connection) -> None:
        busy = Unavailable("too many publishes without a publish key are incomplete; send the body with its head")
        self._responses.refuse(connection, connection.request, busy)

    def _ended(self, connection: Connection, _reason: CloseReason) -> None:
        self._unproven.remove(connection)

    def body_timeout(self, connection: Connection) -> None:
        late = RequestTimeout(f"the request's body was not received within {self._limits.body_s:g} s")
        self._responses.refuse(connection, connection.request, late)

    def receive_pipelined(self, connection: Connection, data: bytes) -> None:
        """Buffers pipelined input; beyond ``head_bytes`` the client is not read until the response is sent."""
        connection.pending_input += data
        if len(connection.pending_input) > self._limits.head_bytes:
            self._sockets.pause(connection)


def _check_listener(connection: Connection) -> None:
    """Raises Forbidden where publishing and administration have a listener of their own, and this is another one."""
    if not connection.admin:
        raise Forbidden("publishing and the list of channels are on the server's admin address (--admin-listen)")


def _head_end(data: bytes) -> int:
    """The end of the first head in ``data``; 0 if it is incomplete."""
    at = data.find(HEAD_END)
    if at >= 0:
        return at + len(HEAD_END)
    return data.find(_BARE_LF_END) + len(_BARE_LF_END) if _BARE_LF_END in data else 0
