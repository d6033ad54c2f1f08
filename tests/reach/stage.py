"""What one cell takes place on, all of it real processes but the relay:

browser ──► relay ──► intermediary ──► server ◄── publisher
   │      (network)                                  │
   └──────── reports ───────► lab ◄──── numbers ─────┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..harness import Server
from .cells import Cell
from .intermediaries import BEHIND, Ports
from .lab import Lab
from .processes import Group, free_port
from .relay import Relay

INTERVAL_S = 0.25  # between two updates


@dataclass
class Stage:
    lab: Lab
    relay: Relay
    browser: Group
    server: Server
    launch: Callable[..., Server]
    number: int = 0  # of the last update
    published: dict[int, float] = field(default_factory=dict)
    """When each update was sent off, of those that the server has acknowledged."""

    def transport(self) -> str | None:
        """That the page is on."""
        states = self.lab.seen("state")
        return states[-1].value["transport"] if states else None

    def last_seen(self) -> int:
        messages = self.lab.seen("message")
        return messages[-1].value if messages else 0

    async def start_server(self) -> None:
        self.server = await asyncio.to_thread(self.launch, "--port", str(self.server.port))

    async def stop_server(self, signal: int) -> None:
        await asyncio.to_thread(self.server.stop, signal)

    async def publish(self, pause_s: float) -> None:
        """Updates, until it is cancelled, with pauses. One that fails is not repeated: it is owed to nobody."""
        while True:
            self.number += 1
            number, sent = self.number, time.monotonic()
            try:
                await asyncio.to_thread(
                    self.server.publish, "reach", f'{{"number":{number}}}', Content_Type="application/json"
                )
                self.published[number] = sent
            except OSError:
                pass
            pause = pause_s and self.last_seen() and number % 10 == 0
            await asyncio.sleep(pause_s if pause else INTERVAL_S)


@asynccontextmanager
async def staged(cell: Cell) -> AsyncIterator[Stage]:
    browser, between, network = cell.browser, cell.between, cell.network
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="reach-", ignore_cleanup_errors=True)))

        async def start(name: str, command: Callable[..., list[str]], *arguments: Any) -> Group:
            folder = _folder(home, name)
            group = await Group.start(command(folder, *arguments), folder)
            stack.push_async_callback(group.stop)
            return group

        lab = Lab()
        await lab.open()
        stack.callback(lab.close)

        trusted = () if between.routes else ("--cors-origin", f"http://127.0.0.1:{lab.port}")
        options = ("--prefix", "/push", "--history", "1000", *trusted, *network.options)  # 250 s of updates
        launch = partial(Server, home / "state", *options)
        server = await asyncio.to_thread(launch)

        target = server.port
        if between.program:
            target = free_port()
            proxy = await start("between", between.command, Ports(target, server.port, lab.port))
            await proxy.listening(target)
        relay = Relay(target)
        relay.refuse(network.refused)
        relay.held, relay.cap_s = frozenset(network.held), network.cap_s
        await relay.listen()
        stack.callback(relay.close)

        page = f"http://127.0.0.1:{relay.port if between.routes else lab.port}/page"
        origin = f"http://{BEHIND}:{server.port}" if between.forward else f"http://127.0.0.1:{relay.port}"
        push = "/push" if between.routes else f"{origin}/push"
        lab.show(
            push, {"url": f"{push}/channels/reach", "report": f"http://localhost:{lab.port}/report", **network.settings}
        )
        process = await start("browser", browser.command, page, relay.port if between.forward else None)

        stage = Stage(lab, relay, process, server, launch)
        stack.push_async_callback(lambda: stage.stop_server(9))
        yield stage


def _folder(home: Path, name: str) -> Path:
    """A proxy that root starts goes on as somebody else, and must still get at its files."""
    home.chmod(0o755)
    folder = home / name
    folder.mkdir()
    folder.chmod(0o777)
    return folder
