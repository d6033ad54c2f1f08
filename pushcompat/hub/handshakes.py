"""TLS handshakes: from the first byte of a connection until its requests can be read.

A handshake costs twenty times as much as the rest of a new connection, so a turn does as many as its time allows
(``loop``), and the others wait. The socket becomes an encrypted one, of 17 KiB, with the client's first byte: a
connection that never sends one costs no more than without TLS. That byte also tells whether it is TLS at all.
"""

from __future__ import annotations

import logging
import socket
import ssl

from .. import logs
from ..logs import Event
from ..tls import HANDSHAKE, Certificate, TLSSocket
from ..wire import http
from .connection import Connection, State
from .context import Context
from .poller import READ, WRITE
from .reasons import CloseReason

_NOT_TLS = (
    b"This port speaks TLS: use https:// instead of http://, and wss:// instead of ws://; "
    b"if a load balancer sends the PROXY protocol, switch it off.\n"
)


class Handshakes:
    def __init__(self, context: Context, certificate: Certificate | None) -> None:
        self._sockets = context.sockets
        self._metrics = context.metrics
        self._certificate = certificate

    def proceed(self, connection: Connection) -> None:
        """Continues as far as the client's bytes go."""
        try:
            if not connection.tls and not self._begin(connection):
                return
            sock = connection.socket
            assert isinstance(sock, TLSSocket)
            sock.do_handshake()
        except ssl.SSLWantWriteError:
            self._sockets.watch_handshake(connection, WRITE)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._sockets.watch_handshake(connection, READ)
        except OSError as error:
            self._fail(connection, "failed", getattr(error, "reason", None) or error.strerror or str(error))
        else:
            self._metrics.tls_handshakes["completed"] += 1
            connection.move(State.READING_HEAD)
            self._sockets.watch(connection)

    def on_timer(self, connection: Connection) -> None:
        self._fail(connection, "timeout", "not complete within --head-timeout")

    def _begin(self, connection: Connection) -> bool:
        """Whether the client has begun a handshake. Raises OSError."""
        first = connection.socket.recv(1, socket.MSG_PEEK)
        if first == HANDSHAKE:
            assert self._certificate is not None
            self._sockets.encrypt(connection, self._certificate)
            return True
        if first:
            self._refuse(connection)
        else:
            self._sockets.abort(connection, CloseReason.CLIENT_CLOSED)
        return False

    def _refuse(self, connection: Connection) -> None:
        """Answers plain HTTP, whatever the request is."""
        self._metrics.tls_handshakes["not_tls"] += 1
        self._sockets.write(connection, http.answer(400, _NOT_TLS, "text/plain; charset=utf-8", keep_alive=False))
        self._sockets.close(connection, CloseReason.HANDSHAKE_FAILED)

    def _fail(self, connection: Connection, result: str, detail: str) -> None:
        self._metrics.tls_handshakes[result] += 1
        logs.event(Event.HANDSHAKE_FAILED, logging.DEBUG, detail=detail, address=connection.client_address)
        self._sockets.abort(connection, CloseReason.HANDSHAKE_FAILED)
