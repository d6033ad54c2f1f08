"""Behind real proxies, as the documentation configures them, each client has the limits of its own address."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ..harness import PATIENCE_S, Client
from ..machine import may_lack
from ..soak.cluster import Node
from .intermediaries import INTERMEDIARIES
from .intermediary import Intermediary, Ports
from .processes import Group, free_port
from .relay import EVENTSOURCE
from .reverse_proxies import REVERSE_PROXIES
from .stage import own_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have 127.0.0.1 only")

PROXIES = [
    between
    for between in INTERMEDIARIES
    if between.name in ("nginx, tuned", "HAProxy", "Apache", "Varnish, tuned")
    or (between in REVERSE_PROXIES and EVENTSOURCE in between.passes)
]
NOISY, QUIET = "127.0.0.50", "127.0.0.51"  # the proxy connects from 127.0.0.1
OPTIONS = ["--prefix", "/push", "--store", "memory:", "--trusted-proxies", "127.0.0.1"]


@pytest.mark.parametrize("between", PROXIES, ids=lambda between: between.name)
def test_a_client_can_invent_no_other_address_for_itself(between: Intermediary) -> None:
    if package := between.missing():
        assert may_lack(package), f"{package} has to be installed"
        pytest.skip(f"needs {package}")
    with TemporaryDirectory(prefix="reach-", ignore_cleanup_errors=True) as folder:
        asyncio.run(_run(Path(folder), between))


async def _run(folder: Path, between: Intermediary) -> None:
    node = Node(folder / "node", [*OPTIONS, "--max-connections-per-address", "2"])
    await node.start()
    own = free_port()
    ports = Ports(own=own, push=node.port, app=node.port, seen=own)
    home = own_folder(folder, "proxy")
    proxy = await Group.start(between.command(home, ports), home)
    try:
        await proxy.listening(ports.own)
        await asyncio.wait_for(_routes(ports.own), PATIENCE_S)
        await asyncio.to_thread(_besiege, ports.own)
    finally:
        await proxy.stop()
        await node.stop()


async def _routes(port: int) -> None:
    """Some listen before they have read where to."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /push/channels/a?wait=0 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        writer.close()
        if b" 200 " in status:
            return
        await asyncio.sleep(0.02)


def _besiege(port: int) -> None:
    held: list[Client] = []

    def status(source: str, **headers: str) -> int:
        client = Client("127.0.0.1", port, source=source)
        held.append(client)
        client.request("GET", "/push/channels/a?transport=eventsource", **headers)
        return client.head()[0]

    try:
        assert [status(NOISY) for _ in range(3)] == [200, 200, 429]
        assert [status(NOISY, X_Forwarded_For=f"192.0.2.{number}") for number in range(3)] == [429] * 3
        # A proxy passes the field on that it does not set: who sends it shares its limits with all who do
        assert [status(NOISY, Forwarded=f"for=192.0.2.{number}") for number in range(3)] == [200, 200, 429]
        assert status(QUIET, Forwarded='for="') == 429
        assert status(QUIET) == 200
    finally:
        for client in held:
            client.close()
