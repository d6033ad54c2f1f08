"""A connection: a socket, the state of its request, and a cursor over the log.

Who writes what: ``deadline`` and ``bucket`` are the timer wheel's; ``unsent`` and ``last_write`` are written by
``sockets``; ``channels``, ``client`` and ``subscribed_at`` by ``subscribe`` and ``unsubscribe``; ``cursor`` by
``fanout``, once ``start_at`` has set it. The rest belongs to the request under way.

Memory: there may be a hundred thousand of these, so there are slots, no dict, and nothing in them but what differs from
one connection to the next.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ..access import Grant
from ..wire.encoding import Encoding
from ..wire.polls import PollTemplate
from ..wire.request import Request
from ..wire.websocket import Input
from .channel import Channel
from .states import TRANSITIONS, IllegalTransition, State
from .timers import NEVER

__all__ = ["TRANSITIONS", "Connection", "IllegalTransition", "State"]


class Connection:
    __slots__ = (
        "bucket", "channels", "client", "cursor", "deadline", "encoding", "expires_at", "grant", "heard",
        "ignored_floors", "input", "last_write", "pending_input", "pinged", "poll_template", "request",
        "request_started", "socket", "state", "subscribed_at", "unsent",
    )  # fmt: skip

    def __init__(self, sock: socket.SocketType, now: int) -> None:
        self.socket = sock
        self.state = State.READING_HEAD
        self.bucket = NEVER
        self.deadline = NEVER
        self.unsent: bytes | memoryview | None = (
            None  # what was written and not sent yet, or what the kernel did not take
        )
        self.last_write = now  # tick of the last send
        # The request
        self.pending_input = b""  # bytes of a request that is not complete, or that came before the last response
        self.request_started = now  # tick at which the first byte of the last request came
        self.request: Request | None = None  # while its body comes
        self.grant: Grant | None = None  # of the last request: who it is from, and what that client may do
        # The subscription
        self.channels: tuple[Channel, ...] = ()
        self.encoding: Encoding | None = None
        self.client = ""
        self.subscribed_at = now
        self.cursor = 0
        self.ignored_floors: Mapping[Channel, int] | None = None  # of a subscription that began with ``earliest``
        self.expires_at = NEVER  # tick at which a stream rotates, or the poll's window ends
        self.heard = 0  # tick at which something came from a WebSocket's client last; 0: never yet
        self.pinged = 0  # tick of the first ping that it has not answered; 0: there is none
        self.input: Input | None = None  # parser of a WebSocket with partial input, or that is closing
        self.poll_template: PollTemplate | None = None  # the last poll, to compare the next one with

    def move(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{self.state.name} → {state.name}")
        self.state = state

    def subscribe(self, channels: tuple[Channel, ...], encoding: Encoding, client: str, now: int) -> None:
        self.channels = channels
        self.encoding = encoding
        self.client = client
        self.subscribed_at = now

    def unsubscribe(self) -> None:
        self.channels = ()
        self.poll_template = None

    def start_at(self, cursor: int, ignored_floors: Mapping[Channel, int] | None = None) -> None:
        """Goes on from there, whatever was sent before."""
        self.cursor = cursor
        self.ignored_floors = ignored_floors

    def count_as_idle(self, ticks: int, now: int) -> None:
        """Takes the last write for so long ago: when the next heartbeat is due follows from it."""
        self.last_write = now - ticks

    def take_input(self) -> bytes:
        received, self.pending_input = self.pending_input, b""
        return received

    @property
    def address(self) -> object:
        """The peer's address, as the operating system gives it; None when the peer is gone."""
        try:
            return self.socket.getpeername()
        except OSError:
            return None
