"""Subscribers that change node and transport again and again, and publishers that repeat until they are answered."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Callable, Sequence
from math import inf

from ..harness import KEY
from ..parity.wires import WIRES, LongPoll
from .ledger import Ledger, Record

CURSOR_WIRES = ("websocket-json", "eventsource-json", "longpoll-json")
_LIFE_S = (1.0, 15.0)
_SLOW_S = (0.5, 3.0)
_PAUSE_S = (0.05, 0.5)
_RECEIVE_BYTES = 16 * 1024  # of a slow reader's socket
_ANSWER_S = 30.0

Addresses = Callable[[], Sequence[tuple[str, int]]]


class Subscriber:
    """``slow``: now and then it reads nothing for a while."""

    def __init__(self, addresses: Addresses, channels: Sequence[str], *, slow: bool) -> None:
        self.record = Record(channels)
        self.connections = 0
        self.refused = 0
        self.failure: str | None = None  # something that is against the protocol
        self._addresses = addresses
        self._slow = slow
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """Loses the connection, and comes back at once."""
        self._cut.set()

    async def run(self) -> None:
        while True:
            life = asyncio.ensure_future(self._connection())
            cut = asyncio.ensure_future(self._cut.wait())
            try:
                await asyncio.wait([life, cut], timeout=random.uniform(*_LIFE_S), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (life, cut):
                    task.cancel()
                results = await asyncio.gather(life, cut, return_exceptions=True)
            self._cut.clear()
            if isinstance(results[0], OSError | EOFError):
                self.refused += isinstance(results[0], ConnectionRefusedError)
                await asyncio.sleep(random.uniform(*_PAUSE_S))
            elif isinstance(results[0], Exception):
                self.failure = repr(results[0])
                return

    async def _connection(self) -> None:
        host, port = random.choice(self._addresses())
        sock = socket.socket()
        sock.setblocking(False)
        if self._slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
            self.connections += 1
            await self._subscription(sock, random.choice(CURSOR_WIRES))
        finally:
            sock.close()

    async def _subscription(self, sock: socket.socket, name: str) -> None:
        loop, wire = asyncio.get_running_loop(), WIRES[name]()
        while True:
            params = {"cursor": self.record.cursor} if self.record.cursor else {}
            await loop.sock_sendall(sock, wire.request(",".join(self.record.channels), params))
            while True:
                if self._slow and random.random() < 0.05:
                    await asyncio.sleep(random.uniform(*_SLOW_S))
                data = await loop.sock_recv(sock, 1 << 16)
                if not data:
                    raise EOFError
                if not wire.status and data.startswith(b"HTTP/1.1 503"):
                    raise EOFError
                for event in wire.feed(data):
                    if event.kind == "rotate" and event.retry and not isinstance(wire, LongPoll):
                        self.record.take(event)
                        await asyncio.sleep(event.retry / 1000)
                        return
                    self.record.take(event)
                    if event.retry and isinstance(wire, LongPoll):
                        await asyncio.sleep(event.retry / 1000)
                if isinstance(wire, LongPoll) and wire.answered:
                    break


class Publisher:
    """Publishes numbered messages, each under a key of its own, each until it is answered."""

    def __init__(self, addresses: Addresses, ledger: Ledger, name: str, channels: Sequence[str], rate: float) -> None:
        self.unanswered = 0
        self._addresses = addresses
        self._ledger = ledger
        self._name = name
        self._channels = channels
        self._pause_s = 1 / rate
        self._most: float = inf
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def stop(self) -> None:
        """Once the publish under way is answered."""
        self._most = 0

    def stop_after(self, publishes: int) -> None:
        self._most = publishes

    async def run(self) -> None:
        number = 0
        while number < self._most:
            number += 1
            channel, data = random.choice(self._channels), f"{self._name}-{number}"
            data += "." * random.choice((0, 0, 0, 500, 5000))
            while True:
                try:
                    cursor = await asyncio.wait_for(self._publish(channel, data, f"{self._name}-{number}"), _ANSWER_S)
                    self._ledger.acknowledge(cursor, channel, data)
                    break
                except (OSError, EOFError):
                    self.unanswered += 1
                    self._close()
                    await asyncio.sleep(random.uniform(*_PAUSE_S))
            await asyncio.sleep(random.expovariate(1 / self._pause_s))
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def _publish(self, channel: str, data: str, key: str) -> str:
        """Returns the id. Raises OSError or EOFError where it was not answered, or with 503."""
        if self._connection is None:
            self._connection = await asyncio.open_connection(*random.choice(self._addresses()))
        reader, writer = self._connection
        writer.write(
            f"POST /channels/{channel} HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: text/plain\r\nIdempotency-Key: {key}\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        status = int(head.split()[1])
        if status >= 500 or "connection: close" in head:
            self._close()
        if status >= 500:
            raise EOFError(body)
        if status != 200:
            raise AssertionError(f"{status}: {body!r}")
        answer: dict[str, str] = json.loads(body)
        return answer["id"]
