"""Connections change hands here: from the hub to Tornado with their first bytes, and back when they ask for /channels.

A browser keeps a connection and uses it for whatever comes next. So a connection that came for the landing page is
given to Tornado, and when a poll comes over it later the hub takes it back, with the request and whatever came behind
it. Nothing of a connection is left behind with either side.

What is relied on, all of it documented by Tornado: ``read_from_fd`` and ``close_fd`` are for overriding, ``detach``
gives a stream up, and ``headers_received`` may do that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import unquote

from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from ..wire.request import origin_form

_MOST_BYTES = 1024 * 1024  # of a request to Tornado, body included
_BODY_S = 20.0

TakeBack = Callable[[socket.socket, bytes], None]


class HandedStream(IOStream):
    """A stream over a connection that was read from before: ``received`` comes first."""

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        self._received = received
        self._returning = False
        super().__init__(sock, max_buffer_size=_MOST_BYTES)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        if self._returning:
            return None
        if not self._received:
            return super().read_from_fd(buf)
        taken = min(len(buf), len(self._received))
        buf[:taken] = self._received[:taken]
        self._received = self._received[taken:]
        return taken

    def close_fd(self) -> None:
        if not self._returning:
            super().close_fd()

    def give_back(self) -> tuple[socket.socket, bytes] | None:
        """Ends the stream but not its socket. Returns the socket, and the bytes that were read but not used.

        None: the client is gone already, and the socket with it.
        """
        if self.closed():
            return None
        self._returning = True
        read = cast("asyncio.Future[bytes]", self.read_bytes(self.max_buffer_size, partial=True))
        unused = read.result() if read.done() else b""
        self.close()
        return self.socket, unused + self._received


class Handover(httputil.HTTPServerConnectionDelegate):
    """Stands between Tornado's HTTP server and the application, and sends requests for the hub back to it."""

    def __init__(
        self, application: httputil.HTTPServerConnectionDelegate, base: str, idle_s: float, head_bytes: int
    ) -> None:
        self._application = application
        self._base = base
        self._server = HTTPServer(
            self, idle_connection_timeout=idle_s, body_timeout=_BODY_S, max_header_size=head_bytes
        )
        self.take_back: TakeBack | None = None

    def hand_over(self, sock: socket.socket, address: object, received: bytes) -> None:
        stream = HandedStream(sock, received)
        self._server.handle_stream(stream, address if isinstance(address, tuple) else ("", 0))

    async def close(self) -> None:
        await self._server.close_all_connections()

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return _Head(self, server_conn, request_conn)

    def delegate_for(
        self, path: str, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate | None:
        """Who reads on; None where that is the hub."""
        rest = path.removeprefix(self._base)
        if rest != path and rest[:1] in ("", "/"):
            return None
        return self._application.start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        self._application.on_close(server_conn)


class _Head(httputil.HTTPMessageDelegate):
    """Waits for a request's head, to see whose it is."""

    def __init__(self, handover: Handover, server_conn: object, request_conn: httputil.HTTPConnection) -> None:
        self._handover = handover
        self._server_conn = server_conn
        self._request_conn = request_conn
        self._delegate: httputil.HTTPMessageDelegate | None = None

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, httputil.RequestStartLine)
        target = origin_form(start_line.path.encode("latin-1"))
        start_line = start_line._replace(path=target.decode("latin-1"))
        path = unquote(start_line.path.partition("?")[0])
        self._delegate = self._handover.delegate_for(path, self._server_conn, self._request_conn)
        if self._delegate is not None:
            return self._delegate.headers_received(start_line, headers)
        self._give_back(start_line, headers)
        return None

    def _give_back(self, start_line: httputil.RequestStartLine, headers: httputil.HTTPHeaders) -> None:
        stream = self._request_conn.detach()  # type: ignore[attr-defined]  # HTTP1Connection's
        given = stream.give_back()
        if given is None:
            return
        sock, unused = given
        head = f"{start_line.method} {start_line.path} {start_line.version}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.get_all())
        assert self._handover.take_back is not None
        self._handover.take_back(sock, head.encode("latin-1") + b"\r\n" + unused)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None if self._delegate is None else self._delegate.data_received(chunk)

    def finish(self) -> None:
        if self._delegate is not None:
            self._delegate.finish()

    def on_connection_close(self) -> None:
        if self._delegate is not None:
            self._delegate.on_connection_close()
