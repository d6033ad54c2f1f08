"""A connection: a socket, the state of its request, and a cursor over the log.

Who writes what: ``deadline`` and ``bucket`` are the timer wheel's; ``unsent``, ``last_write``, ``socket`` and ``tls``
are written by ``sockets``; ``channels``, ``client``, ``subscriber`` and ``subscribed_at`` by ``subscribe`` and
``unsubscribe``; ``cursor`` by ``fanout``, once ``start_at`` has set it, and by ``subscriptions`` before a reload. The
rest belongs to the current request.

Memory: there may be a hundred thousand of these, so the class has slots and no dict, and only fields that differ
between connections.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ..access.grant import Grant
from ..wire.encoding import Encoding
from ..wire.polls import PollTemplate
from ..wire.request import Request
from ..wire.websocket import Input
from .channel import Channel
from .peers import UNLIMITED, Peer
from .states import TRANSITIONS, IllegalTransition, State
from .timers import NEVER

__all__ = ["TRANSITIONS", "Connection", "IllegalTransition", "State"]


class Connection:
    __slots__ = (
        "admin", "bucket", "channels", "client", "cursor", "deadline", "encoding", "expires_at", "grant", "heard",
        "ignored_floors", "input", "last_write", "peer", "pending_input", "pinged", "poll_template", "request",
        "request_started", "socket", "state", "subscribed_at", "subscriber", "tls", "unsent",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.SocketType,
        now: int,
        state: State = State.READING_HEAD,
        *,
        admin: bool = True,
        tls: bool = False,
    ) -> None:
        self.socket = sock
        self.tls = tls  # the socket encrypts
        self.admin = admin  # its listener takes publishing and administration
        self.peer: Peer = UNLIMITED  # the address that it counts for
        self.state = state
        self.bucket = NEVER
        self.deadline = NEVER
        self.unsent: bytes | memoryview | None = None  # bytes not sent yet, or not accepted by the kernel
        self.last_write = now  # tick of the last send
        # The request
        self.pending_input = b""  # bytes of an incomplete request, or of a pipelined one
        self.request_started = now  # tick of the first byte of the last request
        self.request: Request | None = None  # while its body is received
        self.grant: Grant | None = None  # of the last request
        # The subscription
        self.channels: tuple[Channel, ...] = ()
        self.encoding: Encoding | None = None
        self.client = ""
        self.subscriber: Grant | None = None  # of the request that subscribed; ``grant`` may be a later request's
        self.subscribed_at = now
        self.cursor = 0
        self.ignored_floors: Mapping[Channel, int] | None = None  # of a subscription that started with ``earliest``
        self.expires_at = NEVER  # tick at which a stream rotates, or the poll's window ends
        self.heard = 0  # tick of a WebSocket client's last input; 0: none yet
        self.pinged = 0  # tick of the first unanswered ping; 0: none
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
        self.subscriber = self.grant
        self.subscribed_at = now

    def unsubscribe(self) -> None:
        self.channels = ()
        self.subscriber = None
        self.poll_template = None

    def start_at(self, cursor: int, ignored_floors: Mapping[Channel, int] | None = None) -> None:
        """Sets the position."""
        self.cursor = cursor
        self.ignored_floors = ignored_floors

    def count_as_idle(self, ticks: int, now: int) -> None:
        """Sets the last write to ``ticks`` ago, which determines the next heartbeat."""
        self.last_write = now - ticks

    def take_input(self) -> bytes:
        received, self.pending_input = self.pending_input, b""
        return received

    @property
    def client_address(self) -> str | None:
        """The address of the client, for the log: of an IPv6 client that a proxy has reported, or that is gone, its
        network. None: it is unknown.
        """
        if self.peer.proxied and self.peer.limited:
            return self.peer.key
        address = self.address
        return str(address[0]) if isinstance(address, tuple) else self.peer.key or None

    @property
    def address(self) -> object:
        """The peer's address, from the operating system; None if the peer is gone."""
        try:
            return self.socket.getpeername()
        except OSError:
            return None
