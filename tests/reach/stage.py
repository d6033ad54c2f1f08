"""The processes of one cell: server, proxy, browser and publisher, with a relay in this process:

browser ──► relay ──► intermediary ──► server ◄── publisher
   │      (network)                                  │
   └──────── reports ───────► lab ◄──── numbers ─────┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from ..harness import MS, PATIENCE_S, Server
from .cells import Cell
from .intermediaries import BEHIND
from .intermediary import Ports
from .lab import Lab
from .processes import Group, Guard, free_port
from .relay import Relay

INTERVAL_S = 0.25  # between two updates
_HISTORY = ("--history", "1000")  # of 250 s, so that it is lost only where that is meant


@asynccontextmanager
async def staged(cell: Cell) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="reach-", ignore_cleanup_errors=True)))
        stage = Stage(cell, home, stack)
        await stage.set_up()
        yield stage


class Stage:
    browser: Group
    relay: Relay
    server: Server

    def __init__(self, cell: Cell, home: Path, stack: AsyncExitStack) -> None:
        self.lab = Lab()
        self._seen = free_port()  # the relay's
        self.number = 0  # of the last update
        self.published: dict[int, float] = {}  # when each was sent off, of those that the server has acknowledged
        self._cell = cell
        self._home = home
        self._stack = stack

    # What the page has told

    def transports(self) -> list[str]:
        """That it was on, one after the other."""
        return [report.value["transport"] for report in self.lab.seen("state") if report.value["transport"]]

    def last_seen(self) -> int:
        messages = self.lab.seen("message")
        return messages[-1].value if messages else 0

    def first_s(self) -> float:
        """From subscribing to the first update."""
        return (self.lab.seen("message")[0].at - self.lab.seen("subscribe")[0].at) / 1000

    # The server and who publishes

    async def start_server(self, port: int = 0) -> None:
        network, page = self._cell.network, f"http://127.0.0.1:{self.lab.port}"
        trusted = () if self._cell.between.routes else ("--cors-origin", page)
        options = ("--prefix", "/push", *_HISTORY, *trusted, *network.options, "--port", str(port))
        self.server = await asyncio.to_thread(Server, self._home / "state", *options)
        self._guard = await Guard.over(self.server.process.pid)

    async def stop_server(self, signal: int) -> None:
        await asyncio.to_thread(self.server.stop, signal)
        await self._guard.leave()

    async def publish(self, pause_s: float) -> None:
        """Updates, until it is cancelled, with pauses. A failed one is not repeated, and not expected."""
        while True:
            self.number += 1
            number, sent = self.number, time.monotonic()
            data = f'{{"number":{number}}}'
            try:
                await asyncio.to_thread(self.server.publish, "reach", data, Content_Type="application/json")
                self.published[number] = sent
            except OSError:
                pass
            pause = pause_s and self.last_seen() and number % 10 == 0
            await asyncio.sleep(pause_s if pause else INTERVAL_S)

    # In the order of its making

    async def set_up(self) -> None:
        await self.lab.open()
        self._stack.callback(self.lab.close)
        await self.start_server()
        self._stack.push_async_callback(lambda: self.stop_server(9))
        await self._open_relay(await self._start_between())
        await self._start_browser()

    async def _start_between(self) -> int:
        """Returns the port that leads to the server."""
        between = self._cell.between
        if not between.program:
            return self.server.port
        ports = Ports(free_port(), self.server.port, self.lab.port, self._seen)
        proxy = await self._start("between", between.command, ports)
        await proxy.listening(ports.own)
        return ports.own

    async def _open_relay(self, target: int) -> None:
        network = self._cell.network
        self.relay = Relay(target, self._seen)
        self.relay.refuse(network.refused)
        self.relay.held, self.relay.cap_s = frozenset(network.held), network.cap_s
        await self.relay.listen()
        self._stack.callback(self.relay.close)

    async def _start_browser(self) -> None:
        browser, between, network = self._cell.browser, self._cell.between, self._cell.network
        origin = f"http://{BEHIND}:{self.server.port}" if between.forward else f"http://127.0.0.1:{self.relay.port}"
        push = "/push" if between.routes else f"{origin}/push"
        report = f"http://localhost:{self.lab.port}/report"  # a name that no browser asks its proxy for
        self.lab.show(push, {"url": f"{push}/channels/reach", "report": report, **network.settings})
        page = f"http://127.0.0.1:{self.relay.port if between.routes else self.lab.port}/page"
        await asyncio.to_thread(until_found, page)
        proxy = self.relay.port if between.forward else None
        self.browser = await self._start("browser", browser.command, page, proxy)

    async def _start(self, name: str, command: Callable[..., list[str]], *arguments: Any) -> Group:
        folder = own_folder(self._home, name)
        group = await Group.start(command(folder, *arguments), folder)
        self._stack.push_async_callback(group.stop)
        return group


def until_found(page: str) -> None:
    """Traefik accepts connections before it has read its routes, and answers 404; Vite ends some before it is ready."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return urlopen(page, timeout=PATIENCE_S).close()
        except OSError as error:  # HTTPError too
            if time.monotonic() > deadline:
                raise AssertionError(f"{page}: {error}") from error
            time.sleep(20 * MS)


def own_folder(home: Path, name: str) -> Path:
    """A proxy that root starts goes on as somebody else, and must still get at its files."""
    home.chmod(0o755)
    folder = home / name
    folder.mkdir()
    folder.chmod(0o777)
    return folder
