"""A connection: a socket, where its request stands, and a cursor over the log.

The states, and what moves a connection on:

    HEAD        waits for a request head, or for the rest of one. A long-poller between two polls is here too, and keeps
                its subscription for a while, so that it counts as a subscriber and its next poll costs next to nothing.
    BODY        waits for the rest of a publish's body
    PUBLISHING  waits for the log to take the publish
    POLLING     a long-poll is held
    STREAMING   a WebSocket or an event stream is open
    CLOSING     our last words are said: their last bytes go out, then the client's half of the goodbye is awaited
    GONE        closed, or Tornado's

      ┌────────────────────────────────────────────┐
      ▼                                            │ answered
    HEAD ──► BODY ──► PUBLISHING ──────────────────┤
      ├────► POLLING ──────────────────────────────┘
      ├────► STREAMING ──► CLOSING ──► GONE          (from everywhere: CLOSING, GONE)

A transition that is not in the table raises ``IllegalTransition`` and changes nothing: it is a defect of the hub.

Memory: there may be a hundred thousand of these, so there are slots, no dict, and nothing in them but what differs from
one connection to the next.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from ..wire.encoding import Encoding
from .clock import NEVER

if TYPE_CHECKING:
    from ..wire.http import Request
    from ..wire.websocket import Input
    from .channel import Channel
    from .subscribing import Repeat


class State(IntEnum):  # of int for its hash: an Enum's own is a Python function, and states are looked up all the time
    HEAD = 1
    BODY = 2
    PUBLISHING = 3
    POLLING = 4
    STREAMING = 5
    CLOSING = 6
    GONE = 7


TRANSITIONS: dict[State, frozenset[State]] = {
    State.HEAD: frozenset({State.BODY, State.PUBLISHING, State.POLLING, State.STREAMING, State.CLOSING, State.GONE}),
    State.BODY: frozenset({State.HEAD, State.PUBLISHING, State.CLOSING, State.GONE}),
    State.PUBLISHING: frozenset({State.HEAD, State.CLOSING, State.GONE}),
    State.POLLING: frozenset({State.HEAD, State.CLOSING, State.GONE}),
    State.STREAMING: frozenset({State.CLOSING, State.GONE}),
    State.CLOSING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}


class IllegalTransition(RuntimeError):
    """The hub tried to move a connection where its state does not lead."""


class Connection:
    __slots__ = (
        "bucket", "channels", "client", "cursor", "deadline", "encoding", "ends_at", "forgiven",
        "inbox", "input", "joined", "quiet_since", "repeat", "request", "rest", "since", "socket", "state",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, now: int) -> None:
        self.socket = sock
        self.state = State.HEAD
        self.bucket = NEVER  # the clock's
        self.deadline = NEVER
        self.inbox = b""  # bytes of a request that is not complete, or of one that came too early
        self.request: Request | None = None  # while its body comes, or the log takes it
        self.rest: memoryview | None = None  # what the kernel did not take yet
        # The subscription
        self.channels: tuple[Channel, ...] = ()
        self.encoding: Encoding | None = None
        self.cursor = 0
        self.forgiven: Mapping[Channel, int] | None = None  # floors that are no loss: it asked for all there is
        self.client = ""
        self.since = now  # tick at which the first byte of its last request came
        self.joined = now  # tick at which it subscribed
        self.quiet_since = now  # tick of the last byte said
        self.ends_at = NEVER  # tick at which a stream rotates, or the poll's window ends
        self.input: Input | None = None  # of a WebSocket that is in the middle of something
        self.repeat: Repeat | None = None  # its last poll, to compare the next one with

    def move(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{self.state.name} → {state.name}")
        self.state = state

    @property
    def address(self) -> object:
        """The peer's address, as the operating system gives it; None when the peer is gone."""
        try:
            return self.socket.getpeername()
        except OSError:
            return None
