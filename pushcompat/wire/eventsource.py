"""Server-Sent Events (WHATWG HTML §9.2): the head of a stream, and its events.

All output consists of events with an id: scripts cannot see comments, and some client libraries turn them into empty
messages.

To HTTP/1.1 clients a stream is chunked (RFC 9112 §7.1), to HTTP/1.0 clients it ends with the connection. Each send is
one chunk of whole events. Without chunks, clients that read in blocks (everything in Python that uses ``requests``)
get an event only when later ones have filled the block. The last chunk also distinguishes a planned end from a lost
connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..message import SIGNAL, Message, format_cursor
from . import envelope, http
from .encoding import CONTENT_TYPES, EVENTSOURCE, StreamEncoding
from .request import Request

_LINE_END = re.compile(rb"\r\n|\r|\n")
# Exactly this type: some polyfills compare the whole value. The connection is closed at the end of a stream, so that a
# proxy does not keep a connection whose server is about to stop.
_FIELDS = (("Content-Type", CONTENT_TYPES[EVENTSOURCE]), ("Connection", "close"))


def event(cursor: str, data: bytes, name: str | None = None) -> bytes:
    """One event. CR, LF and CRLF each end a line of ``data``."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    title = b"" if name is None else b"event: %b\n" % name.encode()
    return b"id: %b\n%bdata: %b\n\n" % (cursor.encode(), title, data)


class _Events:
    transport = EVENTSOURCE
    single_response = False
    keep_alive = False
    reads_input = False
    # A proxy may hold back the bytes that arrived with the head until more follow (Varnish does).
    pings_early = True
    end = b""

    def __init__(self, heartbeat_s: float | None = None, controls: bool = True) -> None:
        self.heartbeat_s = heartbeat_s
        self._controls = controls

    def head(self, request: Request, extra: bytes) -> bytes:
        return http.head(200, _FIELDS, extra)

    def open(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        opened = _opened(cursor, heartbeat_s, lifetime_s) if self._controls else _position(cursor)
        return b"retry: %d\n%b" % (retry_ms, opened)

    def ping(self, cursor: str) -> bytes:
        return _ping(cursor) if self._controls else _position(cursor)

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None, retry_ms: int | None = None) -> bytes:
        if self._controls:
            return event(cursor, envelope.reset(cursor, channels, spread_ms), "control")
        return event(cursor, self._plain_reset(cursor, channels, spread_ms))

    def _plain_reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
        """The reset for clients that ignore event names."""
        return envelope.reset(cursor, channels, spread_ms)

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        if not self._controls:
            return b"retry: %d\n%b" % (retry_ms, _position(cursor))
        return b"retry: %d\n%b" % (retry_ms, event(cursor, envelope.rotate(cursor, retry_ms), "control"))

    def expired(self, cursor: str) -> bytes:
        return event(cursor, envelope.expired(cursor), "control") if self._controls else _position(cursor)


# In a storm of reconnections most clients have the same position and get the same bytes.
@lru_cache(64)
def _opened(cursor: str, heartbeat_s: float, lifetime_s: float | None) -> bytes:
    # Two events: some virus scanners hold back the first one until they see a second.
    return event(cursor, envelope.opened(cursor, heartbeat_s, lifetime_s), "control") + _ping(cursor)


@lru_cache(64)
def _ping(cursor: str) -> bytes:
    return event(cursor, envelope.ping(cursor), "control")


def _position(cursor: str) -> bytes:
    """Moves a client's position, and fires no event: there is no data."""
    return b"id: %b\n\n" % cursor.encode()


class JsonEvents(_Events):
    """Each event carries the envelope, without a name: for named events a page would need a listener per name."""

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([event(format_cursor(epoch, m.sequence), envelope.envelope(m, epoch)) for m in messages])


class TextEvents(_Events):
    """Each event carries the payload as published, named by its type if it has one."""

    def _plain_reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
        return SIGNAL  # refetch, as in the text frames of WebSocket

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([event(format_cursor(epoch, m.sequence), m.data, m.type) for m in messages])


def chunk(data: bytes) -> bytes:
    """``data``, which must not be empty, as one chunk. It costs 0.2 µs for each encoding, shared by all subscribers."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Chunked:
    """The events of another encoding, in chunks."""

    transport = EVENTSOURCE
    single_response = False
    keep_alive = False
    reads_input = False
    pings_early = True
    end = b"0\r\n\r\n"

    def __init__(self, events: StreamEncoding) -> None:
        self._events = events
        self.heartbeat_s = events.heartbeat_s

    def head(self, request: Request, extra: bytes) -> bytes:
        return self._events.head(request, b"Transfer-Encoding: chunked\r\n" + extra)

    def open(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        return chunk(self._events.open(cursor, heartbeat_s, lifetime_s, retry_ms))

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return chunk(self._events.messages(messages, epoch, head))

    def ping(self, cursor: str) -> bytes:
        return chunk(self._events.ping(cursor))

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None, retry_ms: int | None = None) -> bytes:
        return chunk(self._events.reset(cursor, channels, spread_ms, retry_ms))

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        return chunk(self._events.rotate(cursor, retry_ms))

    def expired(self, cursor: str) -> bytes:
        return chunk(self._events.expired(cursor))
