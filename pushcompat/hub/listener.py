"""Accepts connections.

It has its own handler on the IOLoop, because Tornado's spins when file descriptors run out: a failed accept leaves the
listening socket readable. Before that happens, subscribers are refused (``Sockets.full``): the remaining descriptors
are for publishers and pages. When these are used up as well, one reserved descriptor is used to answer 503, instead of
leaving clients in the backlog without a response.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
import time
from collections.abc import Sequence

from tornado.ioloop import IOLoop

from .. import logs
from ..access.proxies import UNIX
from ..errors import RequestError, TooManyRequests, Unavailable
from ..logs import Event
from ..wire import http
from .connection import Connection, State
from .context import Context

_ACCEPTS = 128  # in one turn of the loop
_PAUSE_S = 1.0
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_OUT_OF_RESOURCES = (*_OUT_OF_DESCRIPTORS, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM = Unavailable("the server has reached its maximum number of connections; try again later", retry_s=5)


class Listener:
    """``tls``: connections begin with a TLS handshake, except on Unix sockets."""

    def __init__(self, context: Context, *, tls: bool = False) -> None:
        self._tls = tls
        self._sockets = context.sockets
        self._timers = context.timers
        self._metrics = context.metrics
        self._peers = context.peers
        self._unsent_bytes = context.limits.unsent_bytes
        self._head_s = int(context.limits.head_s)
        self._listening: list[socket.socket] = []
        self._public: set[socket.socket] = set()  # of these, those that take neither publishing nor administration
        self._spare: socket.socket | None = None  # closed to free a descriptor for one more connection

    def listen(self, sockets: Sequence[socket.socket], *, admin: bool = True) -> None:
        """Accepts on these too. The listener takes ownership. ``admin``: for publishing and administration too."""
        if self._spare is None:
            self._spare = _open_spare()
        for sock in sockets:
            sock.setblocking(False)
            prepare(sock, self._unsent_bytes)
            self._listening.append(sock)
            if not admin:
                self._public.add(sock)
            self._watch(sock)

    def leave(self, sockets: Sequence[socket.socket]) -> None:
        """Stops accepting on these, and closes them."""
        for sock in sockets:
            IOLoop.current().remove_handler(sock)
            sock.close()
            self._listening.remove(sock)
            self._public.discard(sock)

    def close(self) -> None:
        """Stops accepting."""
        self.leave(list(self._listening))
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _watch(self, sock: socket.socket) -> None:
        if sock.fileno() != -1:  # otherwise it was closed during a pause
            kind = sock.family, sock.type, sock.proto
            admin = sock not in self._public
            tls = self._tls and sock.family != socket.AF_UNIX
            state = State.HANDSHAKING if tls else State.READING_HEAD
            IOLoop.current().add_handler(sock, lambda _fd, _events: self._accept(sock, kind, state, admin), IOLoop.READ)

    def _accept(self, listening: socket.socket, kind: tuple[int, int, int], state: State, admin: bool) -> None:
        until = self._timers.now + self._head_s
        now = time.monotonic()
        has_address = kind[0] != socket.AF_UNIX
        for _ in range(_ACCEPTS):
            try:
                # Not accept(), whose socket.socket detects ``kind`` for each connection and has a dict: 5 % of a
                # handshake, and 0.2 KiB.
                fd, address = listening._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS and self._spare is not None:
                    try:
                        self._refuse_one(listening, self._spare, state)
                        continue
                    except BlockingIOError:
                        return  # the backlog is empty: the kernel reports that only if a descriptor is free
                    except OSError:
                        pass
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause(listening, error)
                    return
                continue  # the client disconnected before it was accepted
            sock = socket.SocketType(*kind, fd)
            sock.setblocking(False)
            if not _INHERITS:
                prepare(sock, self._unsent_bytes)
            try:
                peer = self._peers.accepted(address[0] if has_address else UNIX, now)
            except TooManyRequests as refused:
                self._refuse_address(sock, refused, state)
                continue
            connection = Connection(sock, self._timers.now, state, admin=admin)
            connection.peer = peer
            self._sockets.watch(connection)
            self._timers.set(connection, until)

    def _refuse_one(self, listening: socket.socket, spare: socket.socket, state: State) -> None:
        """Answers one connection with 503, using the spare descriptor; with TLS, closes it. Raises OSError if that
        fails.
        """
        spare.close()
        self._spare = None
        try:
            sock, _ = listening.accept()
            with sock:
                if state is State.READING_HEAD:
                    _refuse(sock, _NO_ROOM)
        finally:
            self._spare = _open_spare()  # the connection's descriptor is free again
        self._metrics.refused[_NO_ROOM.reason, str(int(_NO_ROOM.status))] += 1
        self._metrics.limited["connections"] += 1

    def _refuse_address(self, sock: socket.SocketType, refused: TooManyRequests, state: State) -> None:
        """Answers 429, without waiting for the request, which would cost a descriptor, or for a TLS handshake."""
        if state is State.READING_HEAD:
            _refuse(sock, refused)
        sock.close()
        self._metrics.refused[refused.reason, str(int(refused.status))] += 1
        self._metrics.limited[refused.limit] += 1

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        self._metrics.accept_pauses += 1
        logs.event(Event.ACCEPT_PAUSED, logging.WARNING, reason=error.strerror, seconds=_PAUSE_S)
        loop = IOLoop.current()
        loop.remove_handler(listening)
        loop.call_later(_PAUSE_S, self._watch, listening)


_REQUEST_BYTES = 16 * 1024
_INHERITS = sys.platform == "linux"  # an accepted socket has its listener's options; elsewhere not all of them


def _refuse(sock: socket.SocketType, refused: RequestError) -> None:
    try:
        sock.setblocking(False)
        sock.send(http.problem(refused, keep_alive=False))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(_REQUEST_BYTES)  # with unread bytes the kernel would send RST and discard the response
    except OSError:
        pass


def _open_spare() -> socket.socket | None:
    try:
        return socket.socket()
    except OSError:
        return None


def prepare(sock: socket.SocketType, unsent_bytes: int) -> None:
    """Sets TCP_NODELAY, SO_KEEPALIVE (detects dead peers), and TCP_NOTSENT_LOWAT (bounds a slow reader's kernel
    memory).
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)
