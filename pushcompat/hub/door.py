"""The door: accepts connections, and waits for each complete request head on every one of them.

It is the listener's own handler on the IOLoop, because Tornado's spins when file descriptors run out: an accept that
fails for want of them leaves the listener readable. The door looks away for a second instead, and everyone who is in is
served meanwhile.

A slow or endless head costs a buffer of at most ``head_bytes`` for at most ``head_s``; what it is for is not looked at
before its blank line.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Sequence

from tornado.ioloop import IOLoop

from .. import logs
from ..errors import BadRequest, HeadTooLarge, Refused, RequestTimeout
from ..limits import Limits
from ..metrics import Metrics
from ..wire.http import HEAD_END, NOT_HTTP, Request, may_be_http, parse_head
from .clock import Wheel
from .connection import Connection
from .sockets import Sockets

_ACCEPTS = 128  # in one turn of the loop
_PAUSE_S = 1.0
_LAWLESS_END = b"\n\n"  # of a head whose lines end in a bare LF: the parser will say so


class Door:
    """``on_request(connection, request, head)`` takes each request whose head is complete, with the head's bytes;
    what came behind the head is in ``connection.inbox``. ``refuse(connection, request or None, refused)`` answers the
    others.
    """

    def __init__(
        self,
        sockets: Sockets,
        wheel: Wheel[Connection],
        limits: Limits,
        metrics: Metrics,
        on_request: Callable[[Connection, Request, bytes], None],
        refuse: Callable[[Connection, Request | None, Refused], None],
    ) -> None:
        self._sockets = sockets
        self._wheel = wheel
        self._limits = limits
        self._head_s = int(limits.head_s)
        self._metrics = metrics
        self._on_request = on_request
        self._refuse = refuse
        self._listeners: list[socket.socket] = []

    # Accepting

    def listen(self, listeners: Sequence[socket.socket]) -> None:
        for listener in listeners:
            listener.setblocking(False)
            prepare(listener, self._limits.unsent_bytes)
            self._listeners.append(listener)
            self._watch(listener)

    def close(self) -> None:
        """Accepts no more."""
        for listener in self._listeners:
            IOLoop.current().remove_handler(listener)
            listener.close()
        self._listeners.clear()

    def _watch(self, listener: socket.socket) -> None:
        if listener.fileno() != -1:
            kind = listener.family, listener.type, listener.proto
            IOLoop.current().add_handler(listener, lambda _fd, _events: self._accept(listener, kind), IOLoop.READ)

    def _accept(self, listener: socket.socket, kind: tuple[int, int, int]) -> None:
        until = self._wheel.now + self._head_s
        for _ in range(_ACCEPTS):
            try:
                # Not accept(), which looks ``kind`` up for each connection: a twentieth of a handshake.
                fd, _address = listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._look_away(listener, error)
                    return
                continue  # that client left before it was let in
            sock = socket.socket(*kind, fd)
            sock.setblocking(False)
            if not _INHERITS:
                prepare(sock, self._limits.unsent_bytes)
            connection = Connection(sock, self._wheel.now)
            self._sockets.watch(connection)
            self._wheel.set(connection, until)

    def _look_away(self, listener: socket.socket, error: OSError) -> None:
        self._metrics.accept_pauses += 1
        logs.event("accept paused", level=30, reason=error.strerror, seconds=_PAUSE_S)
        loop = IOLoop.current()
        loop.remove_handler(listener)
        loop.call_later(_PAUSE_S, self._watch, listener)

    # Heads

    def receive(self, connection: Connection, data: bytes) -> None:
        """Takes bytes of a connection that waits for a request head."""
        if connection.inbox:
            data = connection.inbox + data
        else:
            data = data.lstrip(b"\r\n")  # RFC 9112 §2.2: empty lines before a request are nothing
            if not data:
                return
            connection.since = now = self._wheel.now
            self._wheel.set(connection, now + self._head_s)
        most = self._limits.head_bytes
        end = _head_end(data)
        if 0 < end <= most:
            connection.inbox = data[end:]
            self._parse(connection, data[:end])
        elif len(data) > most:
            self._refuse(connection, None, HeadTooLarge(f"a request's head may have at most {most} bytes"))
        elif not may_be_http(data):
            self._refuse(connection, None, BadRequest(NOT_HTTP))
        else:
            connection.inbox = data

    def _parse(self, connection: Connection, head: bytes) -> None:
        try:
            request = parse_head(head)
        except Refused as refused:
            self._refuse(connection, None, refused)
            return
        self._on_request(connection, request, head)

    def give_up(self, connection: Connection) -> None:
        """The rest of a head did not come in time, or no request at all."""
        if connection.inbox:
            late = RequestTimeout(f"the request's head did not come within {self._limits.head_s:g} s")
            self._refuse(connection, None, late)
        else:
            self._sockets.lose(connection, "idle")


def _head_end(data: bytes) -> int:
    """Where the first head in ``data`` ends; 0 where it does not."""
    at = data.find(HEAD_END)
    if at >= 0:
        return at + len(HEAD_END)
    return data.find(_LAWLESS_END) + len(_LAWLESS_END) if _LAWLESS_END in data else 0


_INHERITS = sys.platform == "linux"  # an accepted socket has its listener's options; elsewhere not all of them


def prepare(sock: socket.socket, unsent_bytes: int) -> None:
    """Sends at once, notices dead peers, and keeps a slow reader's backlog a cursor rather than kernel memory."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)
