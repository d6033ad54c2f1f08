"""The interface of an encoding: it turns messages and control messages into the bytes of one transport and format.

The hub is otherwise independent of wire formats: what differs between transports is an attribute or a method here.
Each encoding is created once and shared by all connections that use it, so that bytes encoded for one connection can be
sent to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..message import Message
from .request import Request

WEBSOCKET = "websocket"
EVENTSOURCE = "eventsource"
LONGPOLL = "longpoll"
TRANSPORTS = (WEBSOCKET, EVENTSOURCE, LONGPOLL)

# Content types for responses to HEAD. A WebSocket has none: its URL without Upgrade is a poll.
CONTENT_TYPES: Mapping[str, str] = {
    WEBSOCKET: "application/json",
    EVENTSOURCE: "text/event-stream",
    LONGPOLL: "application/json",
}


class Encoding(Protocol):
    @property
    def transport(self) -> str: ...

    @property
    def single_response(self) -> bool:
        """One response ends the request (long-poll)."""

    @property
    def keep_alive(self) -> bool:
        """Another request may follow on the connection."""

    @property
    def reads_input(self) -> bool:
        """The client sends frames that must be read, and a closing handshake ends the stream (WebSocket)."""

    @property
    def end(self) -> bytes:
        """Bytes after ``rotate`` or ``expired``, so that the client can tell a planned end from a lost connection."""

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        """``messages`` in order; ``head`` is the sequence number of the client's position after the last one."""

    def ping(self, cursor: str) -> bytes: ...

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None, retry_ms: int | None = None) -> bytes:
        """Messages of these channels were lost; delivery continues after ``cursor``.

        ``retry_ms``: the delay before a client that must reconnect does so; None: it need not reconnect.
        """

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        """A planned disconnect: the client reconnects after ``retry_ms``."""


class StreamEncoding(Encoding, Protocol):
    @property
    def heartbeat_s(self) -> float | None:
        """The longest silence, if the client has requested a shorter one than the server's."""

    @property
    def pings_early(self) -> bool:
        """A ping is due within about a second of the opening, whatever the heartbeat."""

    def head(self, request: Request, extra: bytes) -> bytes:
        """The response head that accepts ``request``; ``extra`` are header lines for it (CORS). Raises RequestError."""

    def open(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        """The first bytes of the stream, after the head: the client's position, heartbeat and lifetime."""

    def expired(self, cursor: str) -> bytes:
        """The client's token is no longer valid; the stream ends."""
