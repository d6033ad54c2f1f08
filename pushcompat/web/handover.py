"""Hands connections from the hub to Tornado for one request each, and back to the hub after the response.

A browser keeps a connection and uses it for its next request, whatever that is. So the hub reads every request head,
with its timeouts and limits. A head that is not for /channels comes here, complete, with the bytes received after it.
Tornado reads the body, if the page accepts one, and responds. Then the hub gets back the socket and the bytes not read
yet. Neither side keeps state of a connection that the other one has.

If the connection ends with the response, it is shut down for writing and read until the client closes it: the kernel
would reset a connection that is closed with unread input, and the client would lose the response (RFC 9112 §9.6).

All that this uses is documented by Tornado: ``HTTP1Connection.read_response`` serves one request; ``read_from_fd``,
``close_fd`` and ``set_nodelay`` are for overriding.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tornado import httputil
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from ..access.proxies import Client, Proxies
from ..limits import Limits
from ..logs import log
from ..tls import BLOCKED, TLSSocket, end
from ..wire.forwarded import NAMES, Reports
from ..wire.request import origin_form
from .app import BODY_BYTES

_READ_BYTES = 16 * 1024  # in one read


class Peer(Protocol):
    """The client's address, as the hub counts connections. ``proxied``: a trusted proxy has connected."""

    proxied: bool

    def leave(self) -> None:
        """One of its connections was closed."""


TakeBack = Callable[[socket.socket, Any, bytes, bool], None]


class HandedStream(IOStream):
    """A stream over a connection from which ``received`` was already read: those bytes come first.

    ``end(socket)`` gets the socket when Tornado closes the stream.
    """

    def __init__(
        self, sock: socket.socket, received: bytes, buffer_bytes: int, end: Callable[[socket.socket], None]
    ) -> None:
        self._received = received
        self._returning = False
        self._end = end
        super().__init__(sock, max_buffer_size=buffer_bytes, read_chunk_size=_READ_BYTES)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        if self._returning:
            return None
        if not self._received:
            try:
                return super().read_from_fd(buf)
            except BLOCKED:
                return None
        taken = min(len(buf), len(self._received))
        buf[:taken] = self._received[:taken]
        self._received = self._received[taken:]
        return taken

    def write_to_fd(self, data: memoryview) -> int:
        try:
            return super().write_to_fd(data)
        except BLOCKED:
            return 0

    def set_nodelay(self, value: bool) -> None:
        """Does nothing: the hub has set TCP_NODELAY, and Tornado would clear it after each response."""

    def close_fd(self) -> None:
        if not self._returning:
            self._end(self.socket)

    def give_back(self) -> tuple[socket.socket, bytes] | None:
        """Ends the stream without closing its socket. Returns the socket, and bytes that were read but not used.

        None: the stream was closed.
        """
        if self.closed():
            return None
        self._returning = True
        read = cast("asyncio.Future[bytes]", self.read_bytes(self.max_buffer_size, partial=True))
        unused = read.result() if read.done() else b""
        self.close()
        return self.socket, unused + self._received


@dataclass(slots=True)
class Context:
    """What handlers ask the connection for, by these names: the client's address, the scheme and host of the URL that
    it uses. A trusted proxy reports them; ``host`` is empty without. ``admin``: its listener takes administration.
    """

    remote_ip: str
    admin: bool
    protocol: str
    proxied: bool
    host: str = ""

    def take(self, client: Client) -> None:
        if client.address:
            self.remote_ip = client.address
        if client.scheme:
            self.protocol = client.scheme
        self.host = client.host


class Handover:
    """Serves requests outside /channels, with Tornado. ``take_back`` gets each connection that stays open."""

    def __init__(
        self,
        application: httputil.HTTPServerConnectionDelegate,
        limits: Limits,
        proxies: Proxies | None = None,
    ) -> None:
        self._application = application
        self._proxies = proxies or Proxies()
        self._limits = limits
        self._parameters = HTTP1ConnectionParameters(
            max_header_size=limits.head_bytes,
            max_body_size=BODY_BYTES,
            body_timeout=limits.body_s,
            chunk_size=_READ_BYTES,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._ignored = bytearray(_READ_BYTES)
        self.take_back: TakeBack | None = None

    def hand_over(self, sock: socket.socket, peer: Peer, received: bytes, admin: bool) -> None:
        # One request, and one read more, which may contain the next request.
        buffer_bytes = self._limits.head_bytes + BODY_BYTES + _READ_BYTES
        stream = HandedStream(sock, received, buffer_bytes, lambda sock: self._end(sock, peer))
        protocol = "https" if isinstance(sock, TLSSocket) else "http"
        self._start(self._serve(stream, Context(_address(sock), admin, protocol, peer.proxied), peer), stream.close)

    async def close(self) -> None:
        """Closes all connections that Tornado serves."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None], close: Callable[[], None]) -> None:
        """``close`` is called at the end, also of a task that is cancelled before its first step."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: close())

    async def _serve(self, stream: HandedStream, context: Context, peer: Peer) -> None:
        connection = HTTP1Connection(stream, False, self._parameters, context)
        delegate = _Seen(self._application.start_request(self, connection), context, self._proxies)
        try:
            async with asyncio.timeout(
                self._limits.body_s + self._limits.write_s
            ):  # for the body, and for the response
                await connection.read_response(delegate)
        except (StreamClosedError, UnsatisfiableReadError, TimeoutError):
            return
        except Exception:
            log.exception("BUG: unhandled exception in a page, connection closed")
            return
        given = stream.give_back()
        if given is not None:
            assert self.take_back is not None
            sock, unused = given
            self.take_back(sock, peer, unused, context.admin)

    def _end(self, sock: socket.socket, peer: Peer) -> None:
        if self._closed:
            _close(sock, peer)
        else:
            self._start(self._await_close(sock), lambda: _close(sock, peer))

    async def _await_close(self, sock: socket.socket) -> None:
        """Reads until the client closes its side, and ignores what it reads."""
        receive = asyncio.get_running_loop().sock_recv_into
        try:
            async with asyncio.timeout(self._limits.closing_s):
                with await _end(sock) as ended:
                    while await receive(ended, self._ignored):
                        await asyncio.sleep(0)  # a client that sends as fast as it can gets one read in each turn
        except (OSError, TimeoutError):
            pass


async def _end(sock: socket.socket) -> socket.socket:
    while True:
        try:
            return socket.socket(fileno=end(sock).detach())
        except ssl.SSLWantWriteError:
            await _until_writable(sock)


async def _until_writable(sock: socket.socket) -> None:
    loop, writable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(sock)


def _close(sock: socket.socket, peer: Peer) -> None:
    sock.close()
    peer.leave()


def _address(sock: socket.socket) -> str:
    """The address that has connected; empty on a Unix socket, or if it is gone."""
    try:
        address = sock.getpeername()
    except OSError:
        return ""
    return str(address[0]) if isinstance(address, tuple) else ""


class _Seen(httputil.HTTPMessageDelegate):
    """Passes a request to the application as the client sees it: with the URL that a trusted proxy reports. A target
    ``http://host/path`` becomes ``/path``.
    """

    def __init__(self, delegate: httputil.HTTPMessageDelegate, context: Context, proxies: Proxies) -> None:
        self._delegate = delegate
        self._context = context
        self._proxies = proxies
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.finish = delegate.finish  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, httputil.RequestStartLine)
        if self._context.proxied:
            self._context.take(self._proxies.client(Reports(*(headers.get(name, "") for name in NAMES))))
        target = origin_form(start_line.path.encode("latin-1"))
        return self._delegate.headers_received(start_line._replace(path=target.decode("latin-1")), headers)
