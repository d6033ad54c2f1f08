"""Requests under /channels: who gets them, and the bodies of publishes. Everything else is Tornado's.

GET      subscribe              HEAD     what GET would say of itself
POST     publish                OPTIONS  what a page of another origin may do
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Sequence

from .. import policy
from ..errors import BadRequest, MethodNotAllowed, NotFound, Refused, RequestTimeout
from ..limits import Limits
from ..wire import http
from ..wire.encoding import CONTENT_TYPES
from ..wire.http import Request
from .answering import Answering
from .clock import Wheel
from .connection import Connection, State
from .publishing import Publishing, media_type
from .sockets import Sockets
from .subscribing import Subscribing

HandOver = Callable[[socket.socket, object, bytes], None]

_ALLOW = "GET, HEAD, POST, OPTIONS"


class Requests:
    def __init__(
        self,
        sockets: Sockets,
        wheel: Wheel[Connection],
        limits: Limits,
        answering: Answering,
        subscribing: Subscribing,
        publishing: Publishing,
        publish_keys: Collection[bytes],
        origins: Sequence[str],
        prefix: str,
        hand_over: HandOver,
    ) -> None:
        self._sockets = sockets
        self._wheel = wheel
        self._limits = limits
        self._answering = answering
        self._subscribing = subscribing
        self._publishing = publishing
        self._publish_keys = publish_keys
        self._origins = origins
        self._base = f"{prefix}/channels"
        self._below = f"{self._base}/"
        self._nameless = f"name the channels to follow: GET {self._base}/NAME[,NAME…]"
        self._hand_over = hand_over
        self._methods = {"GET": self._get, "HEAD": self._head, "POST": self._post, "OPTIONS": self._options}

    def route(self, connection: Connection, request: Request, head: bytes) -> None:
        path = request.path
        if not path.startswith(self._below) and path != self._base:
            self._give_away(connection, head)
            return
        try:
            method = self._methods.get(request.method)
            if method is None:
                raise MethodNotAllowed(f"{request.method} means nothing here; GET subscribes, POST publishes", _ALLOW)
            method(connection, request, head)
        except Refused as refused:
            self._answering.refuse(connection, request, refused)

    def _give_away(self, connection: Connection, head: bytes) -> None:
        self._subscribing.leave(connection, "left", returns=True)
        address = connection.address
        received, connection.inbox = head + connection.inbox, b""
        self._hand_over(self._sockets.release(connection), address, received)

    def _names(self, request: Request) -> tuple[str, ...]:
        """The channels that the path names; none: it ends at /channels."""
        text = request.path[len(self._base) + 1 :]
        return policy.channel_names(text, self._limits.names) if text else ()

    # Methods

    def _get(self, connection: Connection, request: Request, head: bytes) -> None:
        names = self._names(request)
        if not names:
            raise NotFound(self._nameless)
        if request.has_body:
            raise BadRequest("a subscription has no body; to publish, use POST")
        self._subscribing.subscribe(connection, request, names, head)

    def _head(self, connection: Connection, request: Request, head: bytes) -> None:
        if not self._names(request):
            raise NotFound(self._nameless)
        policy.check_origin(request, self._origins)
        kind = CONTENT_TYPES[policy.transport(request)]
        self._answering.answer_empty(connection, request, 200, [("Content-Type", kind)])

    def _options(self, connection: Connection, request: Request, head: bytes) -> None:
        may_look = b"origin" in request.headers and self._origins
        headers = [("Allow", _ALLOW), *(policy.PREFLIGHT if may_look else ())]
        self._answering.answer_empty(connection, request, 204, headers)

    def _post(self, connection: Connection, request: Request, head: bytes) -> None:
        # Whatever can be refused by its head is, before the body is waited for.
        names = self._names(request)
        publisher = request.findings.get("publisher") or self._check_publisher(request)
        http.check_length(request, self._publishing.body_limit(not names))
        received, connection.inbox = connection.inbox, b""
        if not received and request.has_body and request.expects_continue:
            self._sockets.offer(connection, http.CONTINUE)
        connection.request = request
        if not self._take_body(connection, request, names, publisher, received) and connection.state is State.HEAD:
            connection.move(State.BODY)
            self._wheel.set(connection, self._wheel.now + int(self._limits.body_s))

    def _check_publisher(self, request: Request) -> str:
        """Who publishes, if they may, and say in which format: the same for all requests with these header fields."""
        policy.check_origin(request, self._origins)
        publisher = policy.check_publisher(request, self._publish_keys)
        media_type(request)
        request.findings["publisher"] = publisher
        return publisher

    # Bodies

    def receive_body(self, connection: Connection, data: bytes) -> None:
        request = connection.request
        assert request is not None
        try:
            self._take_body(connection, request, self._names(request), request.findings["publisher"], data)
        except Refused as refused:
            self._answering.refuse(connection, request, refused)

    def _take_body(
        self, connection: Connection, request: Request, names: Sequence[str], publisher: str, data: bytes
    ) -> bool:
        """Adds to the body; publishes and returns True when it is complete. What lies behind it goes to the inbox."""
        connection.inbox = request.feed(data)
        if request.chunked:
            http.check_length(request, self._publishing.body_limit(not names))
        if not request.complete:
            return False
        self._publishing.submit(connection, request, names, publisher)
        return True

    # What the clock asks for

    def body_is_late(self, connection: Connection) -> None:
        late = RequestTimeout(f"the request's body did not come within {self._limits.body_s:g} s")
        self._answering.refuse(connection, connection.request, late)
