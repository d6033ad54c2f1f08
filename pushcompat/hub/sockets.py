"""The hub's sockets: one poller for all of them, and the few things that are done to a socket.

The poller is nested in the IOLoop by its own file descriptor: a hundred thousand sockets cost the IOLoop one handler.

Bytes once offered never change. What the kernel does not take is the connection's *rest*; it goes out before anything
else, control frames included. While there is a rest the connection is watched for writing only: a client that does not
read is not read either, so a flood of pings can not grow the answers to it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

from .. import logs
from .clock import NEVER, Wheel
from .connection import Connection, State
from .poller import READ, WRITE, make_poller

# All of these mean "would block".
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

BODY_BYTES = 64 * 1024
READ_BYTES = 4 * 1024  # in one go: more than nearly any head. A larger buffer costs half a microsecond each time


class Sockets:
    """``on_ended(connection, reason)`` is told once when a connection's last words are said, or it is lost."""

    def __init__(self, wheel: Wheel[Connection], close_s: float, on_ended: Callable[[Connection, str], None]) -> None:
        self._poller = make_poller()
        self.paused: set[Connection] = set()
        self._corked: list[Connection] = []
        self._wheel = wheel
        self._close_s = max(1, int(close_s))
        self._on_ended = on_ended

    def __len__(self) -> int:
        return len(self.connections())

    def connections(self) -> list[Connection]:
        return [*self._poller.connections(), *self.paused]

    def fileno(self) -> int:
        """What the IOLoop watches."""
        return self._poller.fileno()

    def ready(self, most: int) -> list[tuple[Connection, int]]:
        return self._poller.ready(most)

    def watch(self, connection: Connection) -> None:
        self._poller.watch(connection, READ)

    def release(self, connection: Connection) -> socket.socket:
        """Gives the open socket away: it is no longer the hub's."""
        self._unwatch(connection)
        connection.move(State.GONE)
        connection.deadline = NEVER
        return connection.socket

    def pause(self, connection: Connection) -> None:
        """Reads no more from the connection for now."""
        if connection not in self.paused:
            self._poller.forget(connection)
            self.paused.add(connection)

    def resume(self, connection: Connection) -> None:
        if connection in self.paused and connection.rest is None:
            self.paused.remove(connection)
            self.watch(connection)

    def _unwatch(self, connection: Connection) -> None:
        if connection in self.paused:
            self.paused.remove(connection)
        else:
            self._poller.forget(connection)

    def offer(self, connection: Connection, data: bytes | memoryview) -> None:
        """Sends ``data`` behind whatever is still unsent."""
        if connection.rest is not None:
            connection.rest = memoryview(bytes(connection.rest) + data)
            return
        try:
            sent = connection.socket.send(data)
        except BLOCKED:
            sent = 0
        except OSError:
            self.lose(connection, "reset")
            return
        if sent != len(data):
            self.keep(connection, memoryview(data)[sent:])

    def cork(self, connection: Connection, data: bytes) -> None:
        """Sends ``data`` behind whatever is still unsent, but not before ``uncork``."""
        if connection.rest is not None:
            self.offer(connection, data)
            return
        connection.rest = memoryview(data)
        self._corked.append(connection)

    def uncork(self) -> Iterator[Connection]:
        """Sends what was corked: many sends in a row cost less each. Yields those with nothing left unsent."""
        corked, self._corked = self._corked, []
        for connection in corked:
            rest, connection.rest = connection.rest, None
            if rest is not None:
                self.offer(connection, rest)
                if connection.rest is None:
                    self.resume(connection)
                    if connection.state is State.CLOSING:
                        self.shut(connection)
                    yield connection

    def keep(self, connection: Connection, rest: memoryview) -> None:
        connection.rest = rest
        connection.quiet_since = self._wheel.now
        self.paused.discard(connection)
        self._poller.watch(connection, WRITE)

    def flush(self, connection: Connection) -> bool:
        """Goes on with the rest. True when nothing is left of it."""
        rest = connection.rest
        if rest is None:
            return True
        try:
            sent = connection.socket.send(rest)
        except BLOCKED:
            return False
        except OSError:
            self.lose(connection, "reset")
            return False
        connection.quiet_since = self._wheel.now
        if sent != len(rest):
            connection.rest = rest[sent:]
            return False
        connection.rest = None
        self._poller.watch(connection, READ)
        if connection.state is State.CLOSING:
            self._wheel.set(connection, self._wheel.now + self._close_s)
            self.shut(connection)
        return True

    def end(self, connection: Connection, reason: str) -> None:
        """Our last words are said: sees that they get out, and awaits the client's half of the goodbye.

        Closing at once, with bytes of the client unread, would make the kernel reset the connection and take the
        last words back (RFC 9112 §9.6).
        """
        if connection.state in (State.CLOSING, State.GONE):
            return
        connection.move(State.CLOSING)
        self._wheel.set(connection, self._wheel.now + self._close_s)
        self._on_ended(connection, reason)
        self.resume(connection)
        if connection.rest is None:
            self.shut(connection)

    def shut(self, connection: Connection) -> None:
        """Sends our FIN, unless a WebSocket client has yet to send its Close."""
        if connection.input is not None and not connection.input.finished:
            return
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.lose(connection, "reset")

    def lose(self, connection: Connection, reason: str) -> None:
        """Closes the socket now."""
        if connection.state is State.GONE:
            return
        said = connection.state is State.CLOSING
        self._unwatch(connection)
        connection.move(State.GONE)
        connection.deadline = NEVER
        connection.rest = None
        connection.socket.close()
        if not said:
            self._on_ended(connection, reason)

    def defect(self, connection: Connection) -> None:
        """To be called with an exception that nobody expected: it costs the one connection that it happened to."""
        logs.log.exception("a defect of the hub, in state %s", connection.state.name)
        self.lose(connection, "error")

    def close(self) -> None:
        for connection in self.connections():
            self.lose(connection, "stopped")
        self._poller.close()
