"""Accepts connections.

It is a handler of its own on the IOLoop, because Tornado's spins when file descriptors run out: an accept that fails
for want of them leaves the listening socket readable. Before that happens, subscribers are refused (``Sockets.full``):
the descriptors that are left are for publishers and pages. When these are used up as well, one more that was kept for
this is used to answer 503, rather than leave clients in the backlog without an answer.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Sequence

from tornado.ioloop import IOLoop

from .. import logs
from ..errors import Unavailable
from ..logs import Event
from ..wire import http
from .connection import Connection
from .context import Context

_ACCEPTS = 128  # in one turn of the loop
_PAUSE_S = 1.0
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_OUT_OF_RESOURCES = (*_OUT_OF_DESCRIPTORS, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM = Unavailable("this server has as many connections as it can take; try again", retry_s=5)


class Listener:
    def __init__(self, context: Context) -> None:
        self._sockets = context.sockets
        self._timers = context.timers
        self._metrics = context.metrics
        self._unsent_bytes = context.limits.unsent_bytes
        self._head_s = int(context.limits.head_s)
        self._listening: list[socket.socket] = []
        self._spare: socket.socket | None = None  # closed to have a descriptor for one more connection

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts on these too. They are the listener's from now on."""
        if self._spare is None:
            self._spare = _open_spare()
        for sock in sockets:
            sock.setblocking(False)
            prepare(sock, self._unsent_bytes)
            self._listening.append(sock)
            self._watch(sock)

    def leave(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts no more on these, and closes them."""
        for sock in sockets:
            IOLoop.current().remove_handler(sock)
            sock.close()
            self._listening.remove(sock)

    def close(self) -> None:
        """Accepts no more."""
        self.leave(list(self._listening))
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _watch(self, sock: socket.socket) -> None:
        if sock.fileno() != -1:  # else it was closed during a pause
            kind = sock.family, sock.type, sock.proto
            IOLoop.current().add_handler(sock, lambda _fd, _events: self._accept(sock, kind), IOLoop.READ)

    def _accept(self, listening: socket.socket, kind: tuple[int, int, int]) -> None:
        until = self._timers.now + self._head_s
        for _ in range(_ACCEPTS):
            try:
                # Not accept() and its socket.socket, which looks ``kind`` up for each connection and gives it a dict: a
                # twentieth of a handshake, and 0.2 KiB.
                fd, _address = listening._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS and self._spare is not None:
                    try:
                        self._refuse_one(listening, self._spare)
                        continue
                    except BlockingIOError:
                        return  # nobody waits: without a descriptor the kernel does not say so
                    except OSError:
                        pass
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause(listening, error)
                    return
                continue  # that client left before it was accepted
            sock = socket.SocketType(*kind, fd)
            sock.setblocking(False)
            if not _INHERITS:
                prepare(sock, self._unsent_bytes)
            connection = Connection(sock, self._timers.now)
            self._sockets.watch(connection)
            self._timers.set(connection, until)

    def _refuse_one(self, listening: socket.socket, spare: socket.socket) -> None:
        """Answers a connection that there is no descriptor for. Raises OSError if the spare one does not help."""
        spare.close()
        self._spare = None
        try:
            sock, _ = listening.accept()
            with sock:
                _refuse(sock)
        finally:
            self._spare = _open_spare()  # with the descriptor that the connection had
        self._metrics.refused[_NO_ROOM.reason, str(int(_NO_ROOM.status))] += 1

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        self._metrics.accept_pauses += 1
        logs.event(Event.ACCEPT_PAUSED, logging.WARNING, reason=error.strerror, seconds=_PAUSE_S)
        loop = IOLoop.current()
        loop.remove_handler(listening)
        loop.call_later(_PAUSE_S, self._watch, listening)


_REQUEST_BYTES = 16 * 1024
_INHERITS = sys.platform == "linux"  # an accepted socket has its listener's options; elsewhere not all of them


def _refuse(sock: socket.socket) -> None:
    try:
        sock.setblocking(False)
        sock.send(http.problem(_NO_ROOM, keep_alive=False))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(_REQUEST_BYTES)  # unread bytes would make the kernel take the response back
    except OSError:
        pass


def _open_spare() -> socket.socket | None:
    try:
        return socket.socket()
    except OSError:
        return None


def prepare(sock: socket.SocketType, unsent_bytes: int) -> None:
    """Sends at once, notices dead peers, and keeps a slow reader's backlog a cursor rather than kernel memory."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)
