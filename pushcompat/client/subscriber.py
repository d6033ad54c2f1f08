"""Subscribing from an application: a generator that reconnects and resumes by itself.

for event in listen("chat"):
    if isinstance(event, Reset):
        refetch()
    else:
        show(event.data)
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from .credentials import find_endpoint
from .listener import Listener, TimeIsUp
from .position import Position
from .posts import checked_name
from .transports import TRANSPORTS, ListenRefused, Subscription, TokenRefused, Watchdog

__all__ = ["ListenRefused", "Message", "Reset", "TokenRefused", "listen"]


@dataclass(frozen=True)
class Message:
    """A message. ``cursor`` is its id, and the position after it. ``time``: ms since 1970, by the server's clock.
    ``json``: ``data`` as the bytes that were published. ``spread``: refetch after a random time of up to this many ms.
    """

    cursor: str
    channel: str
    json: bytes
    time: float
    type: str | None = None
    message_key: str | None = None
    spread: float | None = None

    @cached_property
    def data(self) -> Any:
        """What was published: a JSON document, parsed, or text."""
        return json.loads(self.json)


@dataclass(frozen=True)
class Reset:
    """Messages of ``channels`` were lost: refetch what they were about. ``cursor``, ``spread``: as in a message."""

    cursor: str
    channels: list[str]
    spread: float | None = None


Events = Generator[Message | Reset, None, None]


def listen(
    channels: str | Iterable[str],
    *,
    url: str | None = None,
    token: str | Callable[[], str] | None = None,
    cursor: str = "",
    transport: str | None = None,
    timeout: float | None = None,
    ssl_context: ssl.SSLContext | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Events:
    """Subscribes to a channel, or to several: yields each message once and in order, and a Reset where some were lost.

    It blocks while there are none, reconnects by itself, and disconnects at its ``close()``. ``url``: by default
    $PUSHCOMPAT_URL, else http://127.0.0.1:8888. ``token``: the subscriber token, or a function that returns it, which
    is called for each connection. ``cursor``: resume after this one, the ``cursor`` of the last message or reset;
    "earliest": all retained messages; empty: new ones only. ``transport``: "websocket", "eventsource" or "longpoll";
    by default the first of these that works. ``timeout``: seconds after which the generator ends. ``ssl_context``:
    whom to trust, as for ``publish``. ``note`` is called with a line of text for each change of the connection.

    Raises ValueError for invalid arguments. The generator raises ListenRefused if the server refuses the subscription,
    which is a TokenRefused if it is because of the token; anything else is tried again.
    """
    names = [checked_name(name) for name in ([channels] if isinstance(channels, str) else channels)]
    if not names:
        raise ValueError("at least one channel is required")
    if transport not in (None, *TRANSPORTS):
        raise ValueError(f"unknown transport {transport!r}; choose one of {', '.join(TRANSPORTS)}")
    endpoint = find_endpoint(url, ssl_context)
    watchdog = Watchdog(None if timeout is None else time.monotonic() + timeout)
    subscription = Subscription(endpoint, names, watchdog, token, Position(cursor))
    return _events(Listener(subscription, list(TRANSPORTS) if transport is None else [transport], note))


def _events(listener: Listener) -> Events:
    with closing(listener.documents()) as documents:
        try:
            for document in documents:
                yield _decode(document).event()
        except TimeIsUp:
            return


class _Document(msgspec.Struct):
    """An envelope or a reset. The listener lets nothing else through."""

    id: str = ""
    cursor: str = ""
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    time: float = 0
    type: str | None = None
    key: str | None = None
    channels: list[str] = []
    spread: float | None = None

    def event(self) -> Message | Reset:
        if not self.id:
            return Reset(self.cursor, self.channels, self.spread)
        return Message(self.id, self.channel, bytes(self.data), self.time, self.type, self.key, self.spread)


_decode = msgspec.json.Decoder(_Document).decode
