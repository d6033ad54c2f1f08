"""Server-Sent Events (WHATWG HTML §9.2): the head of a stream, and its events.

The stream ends with the connection and is not chunked, so HTTP/1.0 clients and proxies can follow it too. Whatever the
server has to say is an event with an id: scripts can not see comments, and some client libraries make empty messages of
them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..message import Message, format_cursor
from . import envelope, http
from .encoding import EVENTSOURCE

_LINE_END = re.compile(rb"\r\n|\r|\n")


def stream_head(extra: bytes = b"") -> bytes:
    # Exactly this type: some polyfills compare it whole.
    return http.head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")], extra)


def event(cursor: str, data: bytes, name: str | None = None) -> bytes:
    """One event. All of CR, LF and CRLF end a line of ``data``."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    title = b"" if name is None else b"event: %b\n" % name.encode()
    return b"id: %b\n%bdata: %b\n\n" % (cursor.encode(), title, data)


class _Events:
    transport = EVENTSOURCE
    once = False
    keep_alive = False

    def opening(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        return b"retry: %d\n%b" % (retry_ms, _opened(cursor, heartbeat_s, lifetime_s))

    def ping(self, cursor: str) -> bytes:
        return _ping(cursor)

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
        return event(cursor, envelope.reset(cursor, channels, spread_ms), "control")

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        return b"retry: %d\n%b" % (retry_ms, event(cursor, envelope.rotate(cursor, retry_ms), "control"))


# In a storm of reconnections nearly everybody stands at the same place, and is told the same.
@lru_cache(64)
def _opened(cursor: str, heartbeat_s: float, lifetime_s: float | None) -> bytes:
    # Two events: some virus scanners hold the first one back until they see a second.
    return event(cursor, envelope.opened(cursor, heartbeat_s, lifetime_s), "control") + _ping(cursor)


@lru_cache(64)
def _ping(cursor: str) -> bytes:
    return event(cursor, envelope.ping(cursor), "control")


class JsonEvents(_Events):
    """Each event carries the envelope, unnamed: a page can not listen to names that it does not know."""

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([event(format_cursor(epoch, m.sequence), envelope.envelope(m, epoch)) for m in messages])


class TextEvents(_Events):
    """Each event carries the payload as it was published, named by its type where it has one."""

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([event(format_cursor(epoch, m.sequence), m.data, m.type) for m in messages])
