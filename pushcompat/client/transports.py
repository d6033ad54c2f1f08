"""The transports of a client: three generators with the same interface.

Given a subscription, a transport connects and yields every JSON document that the server sends, as bytes, until the
connection ends: envelopes and control messages. A poll's response is split into these. Failures are
``ListenRefused``, ``ConnectionLost``, OSError or HTTPException. ``Listener`` handles retries and the position.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from .dial import BoundedSocket, Connection, Endpoint
from .position import Position
from .responses import MAX_DETAIL_BYTES, is_retryable, problem_detail, read_body, retry_after_s

OPEN_S = 10.0  # until the first document: some proxies and virus scanners hold it back forever
POLL_S = 25.0  # the longest hold that fits every 30 s cap
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024  # 1,000 times the server's default limit for a message
_POLL_SLACK_S = 15.0
_AT_ONCE_S = 1.0  # a held poll takes longer: the server's timers have a resolution of one second
_READ_BYTES = 64 * 1024
Documents = Generator[bytes, None, None]
T = TypeVar("T")

_LINE_END = re.compile(rb"\r\n|\r|\n")


class ListenRefused(Exception):
    """The server refuses this subscription on this transport. The same request would be refused again."""


class TokenRefused(ListenRefused):
    """The token is missing, wrong or expired. With another one the request may be accepted."""


class ConnectionLost(Exception):
    """The connection failed or ended. ``retry_after_s``: the server's Retry-After."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Watchdog:
    """How many seconds a read may wait: until the connection is considered dead, or the deadline has passed."""

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.silence_s = OPEN_S

    def __call__(self) -> float:
        return min(self.silence_s, self.remaining_s())

    def remaining_s(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()


@dataclass(slots=True)
class Subscription:
    """``token``: the subscriber token, or a function that returns it, which is called for each connection."""

    endpoint: Endpoint
    channels: Sequence[str]
    watchdog: Watchdog
    token: str | Callable[[], str] | None = None
    position: Position = field(default_factory=Position)
    client: str = field(default_factory=lambda: secrets.token_hex(8))

    def path(self, transport: str, **more: object) -> str:
        """The path names the transport although the headers do too, because proxies remove headers."""
        cursor = self.position.requested
        given = {"transport": transport, "format": "json", "client": self.client, "cursor": cursor, **more}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"{self.endpoint.prefix}/channels/{quote(','.join(self.channels), safe=':@~,')}?{query}"

    def headers(self, **more: str) -> dict[str, str]:
        headers = {"User-Agent": "pushcompat", **more}
        token = self.token() if callable(self.token) else self.token
        return {**headers, "Authorization": f"Bearer {token}"} if token else headers


def decoded(decode: Callable[[bytes], T], document: bytes) -> T:
    """Raises ConnectionLost for data that is not of this protocol: from a captive portal, for example."""
    try:
        return decode(document)
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ConnectionLost(f"what was received is not of this protocol: {error}") from error


# WebSocket


def websocket(subscription: Subscription) -> Documents:
    # The clients of websockets use proxies from the environment and follow redirects with the token; its parser does
    # not
    from websockets.client import ClientProtocol
    from websockets.datastructures import Headers
    from websockets.http11 import Response
    from websockets.uri import parse_uri

    endpoint = subscription.endpoint
    path = subscription.path("websocket")
    uri = parse_uri(f"{'wss' if endpoint.secure else 'ws'}://{endpoint.authority}{path}")
    protocol = ClientProtocol(uri, max_size=MAX_DOCUMENT_BYTES)
    connection = Connection(endpoint, subscription.watchdog)
    try:
        response = _get(connection, path, {**dict(protocol.connect().headers.raw_items()), **subscription.headers()})
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise _failed_handshake(response)
        head = Response(response.status, response.reason, Headers(response.headers.items()))
        protocol.receive_data(head.serialize())
        if protocol.handshake_exc is not None:
            raise ConnectionLost(f"WebSocket handshake failed: {protocol.handshake_exc}")
        yield from _texts(_frames(protocol, connection.sock, response))
    finally:
        _close(protocol, connection)
    close = protocol.close_rcvd
    if close is not None and 4400 <= close.code < 4500 and not is_retryable(close.code - 4000):
        refused = TokenRefused if close.code == 4000 + HTTPStatus.UNAUTHORIZED else ListenRefused
        raise refused(close.reason or f"closed with {close.code}")


def _failed_handshake(response: HTTPResponse) -> Exception:
    if response.status == HTTPStatus.UPGRADE_REQUIRED:
        return ListenRefused(_detail(response))  # a proxy removes the Upgrade; it will do so again
    return _failed(response, "a WebSocket handshake")


_CONTINUATION, _TEXT = 0, 1  # opcodes (RFC 6455 §5.2)


def _texts(frames: Iterator[Any]) -> Iterator[bytes]:
    text = b""
    for frame in frames:
        if frame.opcode in (_CONTINUATION, _TEXT):
            text += frame.data
            if frame.fin:
                yield text
                text = b""


def _frames(protocol: Any, sock: BoundedSocket, response: HTTPResponse) -> Iterator[Any]:
    """Carries bytes between the parser and the socket until the server has closed."""
    events = protocol.events_received()[1:]  # the first is the handshake
    while True:
        yield from events
        for data in protocol.data_to_send():
            if data:
                sock.sendall(data)
        if protocol.close_expected():
            return
        data = response.fp.read1(_READ_BYTES)
        if not data:
            return
        protocol.receive_data(data)
        events = protocol.events_received()


def _close(protocol: Any, connection: Connection) -> None:
    """Sends a Close if the WebSocket is open; does not wait for the response."""
    try:
        if protocol.state.name == "OPEN":
            protocol.send_close(1000)
            connection.sock.sendall(b"".join(protocol.data_to_send()))
    except OSError:
        pass  # the connection is lost already
    finally:
        connection.close()


# EventSource


def eventsource(subscription: Subscription) -> Documents:
    """A chunked stream that ends without the last chunk is IncompleteRead, which is an HTTPException."""
    connection = Connection(subscription.endpoint, subscription.watchdog)
    try:
        headers = subscription.headers(Accept="text/event-stream")
        response = _get(connection, subscription.path("eventsource"), headers)
        _check_type(response, "text/event-stream")
        events = EventParser()
        while data := response.read1(_READ_BYTES):
            yield from events.feed(data)
    finally:
        connection.close()


class EventParser:
    """Parses an event stream (WHATWG HTML §9.2.6) into the data of its events. The data includes ids and names."""

    def __init__(self) -> None:
        self._incomplete = b""  # line
        self._data: list[bytes] = []
        self._skip_lf = False  # the last line ended with CR: an LF that follows belongs to it
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._skip_lf:
            chunk = chunk.removeprefix(b"\n")
        self._skip_lf = chunk.endswith(b"\r")
        *lines, self._incomplete = _LINE_END.split(self._incomplete + chunk)
        for line in lines:
            if not self._begun:
                line = line.removeprefix(b"\xef\xbb\xbf")
                self._begun = True
            if line:
                self._take(line)
            elif self._data:
                yield b"\n".join(self._data)
                self._data = []

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))


# Long-poll


class Poll(msgspec.Struct):
    """A poll's response. Messages are kept as raw bytes."""

    cursor: str
    messages: list[msgspec.Raw]
    reset: list[str] | None = None
    spread: int | None = None
    retry: float | None = None


_decode_poll = msgspec.json.Decoder(Poll).decode


def longpoll(subscription: Subscription) -> Documents:
    connection = Connection(subscription.endpoint, subscription.watchdog)
    headers = subscription.headers(Accept="application/json")
    position = subscription.position
    quick_resets = 0
    try:
        while True:
            # Without a cursor the response is immediate, and has one
            held_s = POLL_S if position.requested else 0
            subscription.watchdog.silence_s = held_s + _POLL_SLACK_S
            mark, began = position.mark, time.monotonic()
            response = _get(connection, subscription.path("longpoll", wait=held_s), headers)
            _check_type(response, "application/json")
            poll = decoded(_decode_poll, read_body(response, MAX_DOCUMENT_BYTES))
            is_quick = time.monotonic() - began < _AT_ONCE_S
            yield from _documents(poll)
            if poll.retry is not None:
                return
            # One reset is legitimate. After a second one, two servers with different logs may share this address
            quick_resets = quick_resets + 1 if is_quick and poll.reset is not None else 0
            if is_quick and (position.mark == mark or quick_resets > 1):
                raise ConnectionLost("answered at once with nothing new; a cache may be answering", _AT_ONCE_S)
    finally:
        connection.close()


def _documents(poll: Poll) -> Iterator[bytes]:
    if poll.reset is not None:
        more = {} if poll.spread is None else {"spread": poll.spread}
        yield _control("reset", poll.cursor, channels=poll.reset, **more)
    for message in poll.messages:
        yield bytes(message)
    if poll.retry is None:
        yield _control("ping", poll.cursor)
    else:
        yield _control("rotate", poll.cursor, retry=poll.retry)


def _control(name: str, cursor: str, **more: object) -> bytes:
    return msgspec.json.encode({"control": name, "cursor": cursor, **more})


# HTTP


def _get(connection: Connection, path: str, headers: dict[str, str]) -> HTTPResponse:
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def _check_type(response: HTTPResponse, content_type: str) -> None:
    """Raises ListenRefused or ConnectionLost unless the response is 200 with this type."""
    if response.status != HTTPStatus.OK or response.headers.get_content_type() != content_type:
        raise _failed(response, content_type)


def _failed(response: HTTPResponse, expected: str) -> Exception:
    status = response.status
    if 300 <= status < 400:
        location = response.headers.get("Location")
        return ListenRefused(f"redirects to {location}; redirects are not followed, use the final URL in --url")
    if status < 300:
        answered = f"answered {status} {response.headers.get_content_type()}"
        return ConnectionLost(f"{answered}, expected {expected}; a proxy may be answering instead")
    if is_retryable(status):
        return ConnectionLost(_detail(response), retry_after_s(response.headers.get("Retry-After", "")))
    return (TokenRefused if status == HTTPStatus.UNAUTHORIZED else ListenRefused)(_detail(response))


def _detail(response: HTTPResponse) -> str:
    return problem_detail(response.status, read_body(response, MAX_DETAIL_BYTES))


# The best first
TRANSPORTS: dict[str, Callable[[Subscription], Documents]] = {
    "websocket": websocket,
    "eventsource": eventsource,
    "longpoll": longpoll,
}
