"""Delivery without the hub's loop: the sockets are real, and what a subscriber gets is read from the other end of its
socket; the turns are the test's.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Sequence

from pushcompat.hub.ahead import Ahead
from pushcompat.hub.channel import Channel
from pushcompat.hub.connection import Connection, State
from pushcompat.hub.context import Context
from pushcompat.hub.fanout import Fanout
from pushcompat.hub.responses import Responses
from pushcompat.hub.subscriptions import Subscriptions
from pushcompat.limits import Limits
from pushcompat.message import Message
from pushcompat.metrics import Metrics
from pushcompat.store.memory import MemoryStore
from pushcompat.store.presence import Registry
from pushcompat.wire.encoding import Encoding

EPOCH = "aaaaaaaa"


class Lines:
    """An encoding that is easy to read, and counts what it encodes."""

    transport = "websocket"
    single_response = False
    keep_alive = False
    reads_input = False
    heartbeat_s = None
    end = b""

    def __init__(self) -> None:
        self.encoded: list[list[int]] = []

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        self.encoded.append([message.sequence for message in messages])
        return b"".join(b"%d%b\n" % (message.sequence, message.data) for message in messages)

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None, retry_ms: int | None = None) -> bytes:
        return f"reset {' '.join(channels)} {spread_ms}\n".encode()

    def open(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        raise NotImplementedError

    def ping(self, cursor: str) -> bytes:
        raise NotImplementedError

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        raise NotImplementedError


class Answer(Lines):
    """The same, for one answer."""

    transport = "longpoll"
    single_response = True
    keep_alive = True


class Rig:
    def __init__(
        self, limits: Limits, registry: Registry | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.now = 0.0
        self.metrics = Metrics()
        self.context = Context(limits, self.metrics)
        self.context._in_turn = True  # so that none is scheduled: the turns are the test's
        self.history = self.context.history
        self.history.epoch = EPOCH
        self.history._clock = lambda: self.now
        self.sockets = self.context.sockets
        self.responses = Responses(self.context)
        self.fanout = Fanout(self.context, self.responses)
        self.subscriptions = Subscriptions(
            self.context, Ahead(self.context, MemoryStore(limits.retention), self.fanout), registry
        )
        if self.subscriptions.sharing.peers is not None:
            self.subscriptions.sharing.peers._clock = clock
        self.lines = Lines()
        self._peers: dict[Connection, socket.socket] = {}
        self._sequence = 0

    def close(self) -> None:
        self.sockets.close_all()
        for peer in self._peers.values():
            peer.close()

    def connect(self) -> Connection:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        connection = Connection(ours, 0)
        self.sockets.watch(connection)
        self._peers[connection] = theirs
        return connection

    def subscribe(self, *names: str, cursor: int | None = None, encoding: Encoding | None = None) -> Connection:
        connection = self.connect()
        channels = tuple(self.history.channel(name) for name in names)
        connection.subscribe(
            channels if len(channels) > 1 else channels[0].as_tuple, encoding or self.lines, "", self.context.timers.now
        )
        for channel in channels:
            channel.subscribers.add(connection)
        connection.start_at(self.history.head if cursor is None else cursor)
        assert connection.encoding is not None
        connection.move(State.POLLING if connection.encoding.single_response else State.STREAMING)
        return connection

    def publish(self, *names: str, data: bytes = b"", ttl_s: float | None = None) -> None:
        """One update in each; no turn is taken."""
        for channel in [self._append(name, data, ttl_s) for name in names]:
            self.fanout.mark_dirty(channel)

    def _append(self, name: str, data: bytes, ttl_s: float | None) -> Channel:
        self._sequence += 1
        return self.history.append(Message(name, data, sequence=self._sequence, ttl_s=ttl_s))

    def turn(self, visits: int) -> None:
        self.fanout.run(visits, until=math.inf)

    def cursor(self, connection: Connection) -> str:
        return self.subscriptions.cursor(connection)

    def run(self, visits: int = 256) -> None:
        """Turns until nothing is left to do."""
        turns = 0
        while self.fanout.busy:
            self.turn(visits)
            turns += 1
            assert turns < 1000

    def read(self, connection: Connection) -> list[str]:
        """All lines that have come, by now."""
        received = b""
        try:
            while data := self._peers[connection].recv(1 << 20):
                received += data
        except BlockingIOError:
            pass
        return received.decode().splitlines()

    def flush(self, connection: Connection) -> list[str]:
        """Reads on and on, as the kernel takes more, until nothing more comes."""
        text = ""
        while lines := self._peers_data(connection):
            text += lines
            if connection.unsent is not None:
                self.sockets._flush(connection)
            self.fanout.catch_up(connection)
            self.run()
        return text.splitlines()

    def _peers_data(self, connection: Connection) -> str:
        try:
            return self._peers[connection].recv(1 << 20).decode()
        except BlockingIOError:
            return ""


MakeRig = Callable[..., Rig]
