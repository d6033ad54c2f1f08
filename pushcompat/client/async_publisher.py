"""Publishing from coroutines: asyncio's streams and no threads, so nothing of the application's waits, and a call that
is cancelled ends at once. (Only host names are looked up in a thread, by asyncio itself.) Standard library only.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from .attempts import attempts
from .core import MESSAGE_KEY_HINT, Core, Published
from .dial import CONNECT_S, ConnectTimeout, Endpoint, default_tls
from .exchange import READ_BYTES, Stale, closed, read_received, usual, usual_size
from .failures import Outcome, Response
from .pool import IDLE_S, MOST_KEPT
from .posts import Batch, Post, Update, batch, to_channels
from .publisher import BREAKER_S, TIMEOUT_S


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    since: float = 0.0

    def abort(self) -> None:
        self.writer.transport.abort()


class AsyncPublisher:
    """``Publisher`` for coroutines, with the same parameters. It keeps connections until the end of ``async with``, and
    belongs to one event loop.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT_S,
        breaker: float = BREAKER_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.timeout = timeout
        self._core = Core(url, key, breaker, ssl_context)
        self._kept: deque[_Connection] = deque()

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the kept connections. The publisher can be used again."""
        while self._kept:
            connection = self._kept.pop()
            connection.writer.close()
            try:
                await connection.writer.wait_closed()
            except OSError:
                pass
        await asyncio.sleep(0)  # those that were aborted close in the loop's next turn

    async def publish(
        self,
        channel: str | Iterable[str],
        data: object = None,
        *,
        message_key: str | None = None,
        type: str | None = None,
        ttl: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (as in Publisher)
    ) -> Published:
        """See ``Publisher.publish``."""
        return await self.send(to_channels(channel, data, message_key, type, ttl), idempotency_key, timeout)

    __call__ = publish

    async def publish_batch(
        self,
        updates: Iterable[Update],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Published:
        """See ``Publisher.publish_batch``."""
        return await self.send(batch(updates), idempotency_key, timeout)

    async def cursor(self, channel: str = "", *, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """See ``Publisher.cursor``."""
        request = self._core.cursor_request()
        return self._core.cursor(await self._outcome(request, self.timeout if timeout is None else timeout))

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Batch]:
        """See ``Publisher.batch``."""
        collected = Batch()
        yield collected
        if collected.updates:
            collected.published = await self.publish_batch(collected.updates)

    async def send(
        self,
        post: Post,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Published:
        request, key = self._core.request(post, idempotency_key)
        outcome = await self._outcome(request, self.timeout if timeout is None else timeout)
        return self._core.result(outcome, key)

    async def _outcome(self, request: bytes, timeout_s: float) -> Outcome:
        trying = attempts(timeout_s)
        try:
            pause_s, deadline = next(trying)
            while True:
                if pause_s:
                    await asyncio.sleep(pause_s)
                pause_s, deadline = trying.send(await self._try(request, deadline))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    async def _try(self, request: bytes, deadline: float) -> Outcome:
        try:
            while True:
                try:
                    connection, is_kept = await self._take(deadline)
                    return await self._exchange(connection, request, is_kept, deadline)
                except Stale:
                    continue
        except (OSError, http.client.HTTPException) as error:
            while self._kept:  # whatever has happened to this one has happened to the idle ones too
                self._kept.pop().abort()
            return error

    async def _take(self, deadline: float) -> tuple[_Connection, bool]:
        while self._kept:
            connection = self._kept.pop()
            if time.monotonic() - connection.since < IDLE_S and not connection.reader.at_eof():
                return connection, True
            connection.abort()
        try:
            async with asyncio.timeout(min(CONNECT_S, deadline - time.monotonic())):
                return _Connection(*await _dial(self._core.endpoint)), False
        except TimeoutError:
            raise ConnectTimeout("no connection in time") from None

    async def _exchange(self, connection: _Connection, request: bytes, is_kept: bool, deadline: float) -> Response:
        reusable = False
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                response, reusable = await _exchange(connection, request, is_kept)
                return response
        finally:
            if reusable and len(self._kept) < MOST_KEPT:
                self._kept.append(connection._replace(since=time.monotonic()))
            else:
                connection.abort()


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _dial(endpoint: Endpoint) -> _Streams:
    if endpoint.socket_path:
        return await asyncio.open_unix_connection(endpoint.socket_path)
    context = (endpoint.ssl_context or default_tls()) if endpoint.secure else None
    try:
        return await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    except RuntimeError:  # asyncio has no thread for the look-up: the interpreter ends
        return await _dial_any(endpoint, context)


async def _dial_any(endpoint: Endpoint, context: ssl.SSLContext | None) -> _Streams:
    failure = OSError(f"no address for {endpoint.host}")
    name = endpoint.host if context else None
    for *_, address in socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM):
        try:
            return await asyncio.open_connection(*address[:2], ssl=context, server_hostname=name)
        except OSError as error:
            failure = error
    raise failure


async def _exchange(connection: _Connection, request: bytes, is_kept: bool) -> tuple[Response, bool]:
    """As ``exchange.exchange``."""
    reader, writer, _ = connection
    writer.write(request)
    data = b""
    while True:
        try:
            more = await reader.read(READ_BYTES)
        except ConnectionError:
            more = b""
        data += more
        if not data:
            raise closed(is_kept)
        size = usual_size(data)
        if size is not None and len(data) >= size:
            return usual(data[:size]), len(data) == size
        response = _read(data, is_whole=not more)
        if response is not None:
            return response, False


def _read(data: bytes, is_whole: bool) -> Response | None:
    """An unusual response; None: it is not complete yet."""
    if not is_whole and b"\r\n\r\n" not in data:
        return None
    try:
        return read_received(data)
    except (OSError, http.client.HTTPException):
        if is_whole:
            raise
        return None


# The calls without a publisher


def _publisher(url: str | None, key: str | None, ssl_context: ssl.SSLContext | None) -> AsyncPublisher:
    publisher = AsyncPublisher(url, key, breaker=0, ssl_context=ssl_context)
    if key is not None:
        publisher._core.key_hint = MESSAGE_KEY_HINT
    return publisher


async def publish_async(
    channel: str | Iterable[str],
    data: object = None,
    *,
    message_key: str | None = None,
    type: str | None = None,
    ttl: float | None = None,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = TIMEOUT_S,  # noqa: ASYNC109
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """``publish`` for coroutines. Each call opens a connection; an ``AsyncPublisher`` keeps it."""
    post = to_channels(channel, data, message_key, type, ttl)
    async with _publisher(url, key, ssl_context) as publisher:
        return await publisher.send(post, idempotency_key, timeout)


async def publish_batch_async(
    updates: Iterable[Update],
    *,
    idempotency_key: str | None = None,
    url: str | None = None,
    key: str | None = None,
    timeout: float = TIMEOUT_S,  # noqa: ASYNC109
    ssl_context: ssl.SSLContext | None = None,
) -> Published:
    """``publish_batch`` for coroutines."""
    async with _publisher(url, key, ssl_context) as publisher:
        return await publisher.send(batch(updates), idempotency_key, timeout)
