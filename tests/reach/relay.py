"""The network that a browser is on: a relay right in front of the browser, which misbehaves as it is told.

It reads the heads of requests, so it knows what is asked for; everything else it passes on as it is. What it can do:

    refuse(transports, status)   answer these requests itself, with an error page
    held                         transports whose answers open, while what follows is kept back until they end
    cap_s                        no request, stream or WebSocket outlives this: both ends are cut
    hang_up()                    cut everything
    lose(), find()               the link dies without a word: what was open is never heard of again, what is new waits
    close(), listen()            nobody is there: connections are refused
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress

WEBSOCKET, EVENTSOURCE, LONGPOLL = TRANSPORTS = ("websocket", "eventsource", "longpoll")
_PAGE = b"<html><head><title>Error</title></head><body><h1>The gateway has an error page</h1></body></html>"
_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


def transport_of(head: bytes) -> str | None:
    """What a request is for; None unless it subscribes. Through a forward proxy a WebSocket begins with CONNECT."""
    if head.startswith(b"CONNECT "):
        return WEBSOCKET
    found = re.match(rb"GET \S*[?&]transport=(\w+)", head)
    return found[1].decode() if found else None


class Relay:
    def __init__(self, target: int, port: int) -> None:
        self.port = port
        self.held: frozenset[str] = frozenset()
        self.cap_s: float | None = None
        self.cuts = 0  # that the cap has made
        self.requests = 0  # for channels
        self._target = target
        self._refused: dict[str | None, int] = {}
        self._whole = asyncio.Event()
        self._whole.set()
        self._links: set[_Link] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.close()
        self.hang_up()

    def refuse(self, transports: Iterable[str], status: int = 403) -> None:
        """These from now on, and no others."""
        self._refused = dict.fromkeys(transports, status)

    def hang_up(self) -> None:
        for link in self._links:
            link.end()

    def lose(self) -> None:
        self._whole.clear()
        for link in self._links:
            link.lost = True

    def find(self) -> None:
        self._whole.set()

    def answer(self, transport: str | None) -> bytes | None:
        """What the network answers in place of who was asked."""
        if transport not in self._refused:
            return None
        head = f"HTTP/1.1 {self._refused[transport]} Error\r\nContent-Type: text/html\r\nContent-Length: {len(_PAGE)}"
        return head.encode() + _END_OF_HEAD + _PAGE

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self._links.add(link)
        with suppress(OSError, asyncio.CancelledError):
            await self._whole.wait()
            await link.run(self._target)
        self._links.remove(link)
        writer.close()


class _Link:
    """A connection of the browser, and the one that it is passed on by."""

    def __init__(self, relay: Relay, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        self.lost = False
        self._relay = relay
        self._near, self._to_near = near, to_near
        self._task = asyncio.current_task()
        self._transport: str | None = None  # of the request under way
        self._answered = asyncio.Event()  # at least in part
        self._upgraded = False  # frames follow, no more requests
        self._opened = False  # of an answer that is held, the head went through
        self._held = b""
        self._cap: asyncio.TimerHandle | None = None

    def end(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def run(self, target: int) -> None:
        far, to_far = await asyncio.open_connection("127.0.0.1", target)
        answers = asyncio.create_task(self._pass_answers(far))
        try:
            await self._pass_requests(to_far)
        finally:
            answers.cancel()
            to_far.close()
            self._over()

    async def _pass_requests(self, to_far: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while not self._upgraded:
                head = await self._near.readuntil(_END_OF_HEAD)
                self._begin(transport_of(head))
                if answer := self._relay.answer(self._transport):
                    self._to_near.write(answer)
                    self._over()
                    continue
                self._write(to_far, head)
                if self._transport == WEBSOCKET:
                    await self._answered.wait()
            while data := await self._near.read(65536):
                self._write(to_far, data)
        if self.lost:
            await asyncio.Event().wait()  # nobody behind hears of this end

    async def _pass_answers(self, far: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await far.read(65536):
                if self._transport == WEBSOCKET and not self._answered.is_set():
                    self._upgraded = data.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200"))  # the latter to CONNECT
                self._answered.set()
                self._write(self._to_near, self._let_through(data))
                if self._is_whole(data):
                    self._over()
        self._write(self._to_near, self._held)
        if not self.lost:
            self.end()

    def _begin(self, transport: str | None) -> None:
        self._over()
        self._transport, self._opened, self._held = transport, False, b""
        self._answered.clear()
        self._relay.requests += transport is not None
        if transport and self._relay.cap_s:
            self._cap = asyncio.get_running_loop().call_later(self._relay.cap_s, self._cut)

    def _over(self) -> None:
        if self._cap:
            self._cap.cancel()

    def _cut(self) -> None:
        self._relay.cuts += 1
        self.end()

    def _is_whole(self, data: bytes) -> bool:
        """Whether an answer ends here. That of a poll comes at once; a stream has a last chunk, if it has an end."""
        if self._transport == WEBSOCKET:
            return not self._upgraded  # a refusal
        return self._transport == LONGPOLL or data.endswith(_LAST_CHUNK)

    def _let_through(self, data: bytes) -> bytes:
        if self._transport not in self._relay.held:
            return data
        self._held += data
        if not self._opened:
            head, end, rest = self._held.partition(_END_OF_HEAD)
            self._opened = bool(end)
            passed, self._held = (head + end, rest) if end else (b"", head)
            return passed
        if not data.endswith(_LAST_CHUNK):
            return b""
        passed, self._held = self._held, b""
        return passed

    def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not self.lost:
            writer.write(data)
