"""The transports as a client sees them: three generators of one shape.

Given a subscription, a transport connects and yields every JSON document that the server says, as bytes, until the
connection ends: envelopes, and control messages. A poll's answer is taken apart into the same. What goes wrong is
``Refused``, ``Cut``, OSError or HTTPException. No transport knows of retries, or moves the cursor: ``listen`` does.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from .dial import BoundedSocket, Connection, Endpoint, dial, problem_detail, retry_after_s

OPEN_S = 10.0  # until a connection must have said something: some proxies and virus scanners hold it for ever
POLL_S = 25.0  # the longest hold that fits every 30 s cap
_POLL_SLACK_S = 15.0
_READ_BYTES = 64 * 1024
_PASSING = (408, 425, 429)  # statuses below 500 that may go away by themselves
Documents = Generator[bytes, None, None]

_LINE_END = re.compile(rb"\r\n|\r|\n")


class Refused(Exception):
    """The server will not have this subscription as it is; coming back would not help."""


class Cut(Exception):
    """The connection failed, or was lost. ``retry_s``: how long the server wants us to stay away."""

    def __init__(self, reason: str, status: int = 0, retry_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_s = retry_s


class Watch:
    """How many seconds silence may last: until the connection is taken for dead, or the caller's time is up."""

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.silence_s = OPEN_S

    def __call__(self) -> float:
        return min(self.silence_s, self.left_s())

    def left_s(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()


@dataclass(slots=True)
class Subscription:
    endpoint: Endpoint
    channels: Sequence[str]
    watch: Watch
    token: str | None = None
    cursor: str = ""
    client: str = field(default_factory=lambda: secrets.token_hex(8))

    def path(self, transport: str, **more: object) -> str:
        """The transport is named although the headers say it too, because proxies take headers away."""
        given = {"transport": transport, "format": "json", "client": self.client, "cursor": self.cursor, **more}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"{self.endpoint.prefix}/channels/{quote(','.join(self.channels), safe=':@~,')}?{query}"

    def headers(self, **more: str) -> dict[str, str]:
        headers = {"User-Agent": "pushcompat", **more}
        return {**headers, "Authorization": f"Bearer {self.token}"} if self.token else headers


# WebSocket


def websocket(subscription: Subscription) -> Documents:
    # websockets' own clients ask the environment for proxies and follow redirects with the token: its parser does not
    from websockets.client import ClientProtocol
    from websockets.http11 import Response
    from websockets.uri import parse_uri

    endpoint = subscription.endpoint
    scheme = "wss" if endpoint.secure else "ws"
    uri = parse_uri(f"{scheme}://{endpoint.authority}{subscription.path('websocket')}")
    protocol = ClientProtocol(uri, max_size=None)
    request = protocol.connect()
    request.headers.update(subscription.headers())
    protocol.send_request(request)
    sock = BoundedSocket(dial(endpoint, subscription.watch), subscription.watch)
    try:
        text = b""
        for event in _events(protocol, sock):
            if not isinstance(event, Response) and event.opcode in (_CONTINUATION, _TEXT):
                text += event.data
                if event.fin:
                    yield text
                    text = b""
    finally:
        _hang_up(protocol, sock)
    _judge_end(protocol)


_CONTINUATION, _TEXT = 0, 1  # opcodes (RFC 6455 §5.2)


def _hang_up(protocol: Any, sock: BoundedSocket) -> None:
    """Says goodbye where the server has not, without waiting for an answer."""
    try:
        if protocol.state.name == "OPEN":
            protocol.send_close(1000)
            sock.sendall(b"".join(protocol.data_to_send()))
    except OSError:
        pass  # it is gone, and so are we
    finally:
        sock.close()


def _events(protocol: Any, sock: BoundedSocket) -> Iterator[Any]:
    """Carries bytes between the parser and the socket until the server has closed."""
    while True:
        for data in protocol.data_to_send():
            if data:
                sock.sendall(data)
        if protocol.handshake_exc is not None or protocol.close_expected():
            return
        data = sock.recv(_READ_BYTES)
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        yield from protocol.events_received()
        if not data:
            return


def _judge_end(protocol: Any) -> None:
    """Raises what the end of a WebSocket means, where it is more than an end."""
    refusal = protocol.handshake_exc
    response = getattr(refusal, "response", None)
    if response is not None:
        detail = problem_detail(response.status_code, bytes(response.body or b""))
        raise Cut(detail, response.status_code, retry_after_s(response.headers.get("Retry-After", "")))
    if refusal is not None:
        raise Cut(f"no WebSocket handshake: {refusal}")
    close = protocol.close_rcvd
    if close is not None and 4400 <= close.code < 4500:
        raise Refused(close.reason or f"closed with {close.code}")


# EventSource


def eventsource(subscription: Subscription) -> Documents:
    connection = Connection(subscription.endpoint, subscription.watch)
    try:
        headers = subscription.headers(Accept="text/event-stream")
        response = _get(connection, subscription.path("eventsource"), headers, "text/event-stream")
        events = EventParser()
        while chunk := response.read1(_READ_BYTES):
            yield from events.feed(chunk)
    finally:
        connection.close()


class EventParser:
    """Parses an event stream (WHATWG HTML §9.2.6) into the data of its events. Ids and names are in the data too."""

    def __init__(self) -> None:
        self._rest = b""  # of a line that is not complete
        self._data: list[bytes] = []
        self._skip_lf = False  # the last line ended with CR: an LF that comes now belongs to it
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._skip_lf:
            chunk = chunk.removeprefix(b"\n")
        self._skip_lf = chunk.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
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
    """A poll's answer. Messages stay the bytes that they are."""

    cursor: str
    messages: list[msgspec.Raw]
    reset: list[str] | None = None
    spread: int | None = None
    retry: int | None = None


_decode_poll = msgspec.json.Decoder(Poll).decode


def longpoll(subscription: Subscription) -> Documents:
    connection = Connection(subscription.endpoint, subscription.watch)
    headers = subscription.headers(Accept="application/json")
    try:
        while True:
            # Without a cursor the answer comes at once, and names one
            held_s = POLL_S if subscription.cursor else 0
            subscription.watch.silence_s = held_s + _POLL_SLACK_S
            path = subscription.path("longpoll", wait=held_s)
            response = _get(connection, path, headers, "application/json")
            poll = _decode_poll(response.read())
            yield from _documents(poll)
            if poll.retry is not None:
                return
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


# What HTTP answers


def _get(connection: Connection, path: str, headers: dict[str, str], content_type: str) -> HTTPResponse:
    """The answer, where it is what was asked for. Else raises Refused or Cut."""
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    if response.status == 200 and response.headers.get_content_type() == content_type:
        return response
    if response.status == 200:
        raise Cut(f"answered {response.headers.get_content_type()}, not {content_type}: something is in between")
    if 300 <= response.status < 400:
        raise Refused(f"redirects to {response.headers.get('Location')}; name the server itself in --url")
    detail = problem_detail(response.status, response.read(_READ_BYTES))
    if 400 <= response.status < 500 and response.status not in _PASSING:
        raise Refused(detail)
    raise Cut(detail, response.status, retry_after_s(response.headers.get("Retry-After", "")))


# The best first
TRANSPORTS: dict[str, Callable[[Subscription], Documents]] = {
    "websocket": websocket,
    "eventsource": eventsource,
    "longpoll": longpoll,
}
