"""What a transport has to say, and in which words: the one shape that all encodings have.

An encoding turns messages and control messages into the bytes of its transport and format. The hub knows nothing else
of a transport's words. Encodings are made once and shared by all connections that use the same one, so that what was
encoded for one connection can be sent to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..message import Message

WEBSOCKET = "websocket"
EVENTSOURCE = "eventsource"
LONGPOLL = "longpoll"
TRANSPORTS = (WEBSOCKET, EVENTSOURCE, LONGPOLL)


class Encoding(Protocol):
    @property
    def transport(self) -> str: ...

    @property
    def once(self) -> bool:
        """One answer ends the request: anything said is the last of it."""

    @property
    def keep_alive(self) -> bool:
        """Another request may follow on the connection."""

    def opening(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        """What a stream says first: where the client stands, and what it may expect of the server."""

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        """``messages`` in order; ``head`` is the sequence number at which the client stands once it has read them."""

    def ping(self, cursor: str) -> bytes: ...

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
        """History is gone: the application's pages must look again. It goes on from ``cursor``."""

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        """This request's time is up; come back in ``retry_ms``."""
