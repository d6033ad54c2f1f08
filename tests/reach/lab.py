"""HTTP server for the test page and its reports.

Reports are sent directly by the browser, not through relay and intermediary, whose faults must not affect them. The
responses carry orders for the page.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parent / "page.html").read_text()
AWAY = "<!doctype html><title>away</title><script>setTimeout(function () { history.back(); }, 3000);</script>"


@dataclass(frozen=True)
class Report:
    page: str  # another one after each load
    what: str  # subscribe (value: the time), state, message, reset, show
    value: Any
    at: int  # ms since the page began
    arrived: float  # by the clock of the publisher


class Lab:
    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.order = ""  # for the page, with the next answer
        self.pages: dict[str, str] = {}
        self._news = asyncio.Condition()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.close()

    def show(self, push: str, settings: Mapping[str, Any]) -> None:
        """``push``: where the server is, as the browser sees it."""
        page = PAGE.replace("{{push}}", push).replace("{{settings}}", json.dumps(settings))
        self.pages = {"/page": page, "/away": AWAY}

    def seen(self, what: str) -> list[Report]:
        return [report for report in self.reports if report.what == what]

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it comes true in that time, with a report."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(condition)
        return condition()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(EOFError, OSError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                size = re.search(r"(?i)content-length: (\d+)", head)
                status, kind, body = await self._answer(head, await reader.readexactly(int(size[1]) if size else 0))
                fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nAccess-Control-Allow-Origin: *"
                writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
        writer.close()

    async def _answer(self, head: str, body: bytes) -> tuple[str, str, bytes]:
        method, target, _ = head.split(" ", 2)
        if method == "POST":
            await self._take(body)
            order, self.order = self.order, ""
            return "200 OK", "text/plain", order.encode()
        path = re.sub(r"^http://[^/]*", "", target)
        if path not in self.pages:
            return "404 Not Found", "text/plain", b""
        return "200 OK", "text/html; charset=utf-8", self.pages[path].encode()

    async def _take(self, body: bytes) -> None:
        async with self._news:
            now = time.monotonic()
            self.reports += [Report(**report, arrived=now) for report in json.loads(body)]
            self._news.notify_all()
