"""What nginx does to a WebSocket handshake that it is only half configured for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pushcompat.wire.damage import DAMAGES

from ..harness import Client, Server
from ..machine import may_lack
from .intermediaries import INTERMEDIARIES, nginx_plain
from .intermediary import Ports
from .processes import Group, free_port
from .stage import own_folder

UPGRADE = "proxy_set_header Upgrade $http_upgrade;"
CONNECTION = 'proxy_set_header Connection "upgrade";'
HTTP = "proxy_http_version 1.1;"


@pytest.mark.options("--prefix", "/push")
@pytest.mark.parametrize(
    ("configured", "damage"),
    [
        (HTTP, "upgrade"),
        (CONNECTION, "upgrade"),
        (HTTP + UPGRADE, "connection"),
        (UPGRADE + CONNECTION, "http_version"),
        (HTTP + UPGRADE + CONNECTION, None),
    ],
)
def test_a_half_configured_nginx_is_told_the_other_half(server: Server, configured: str, damage: str | None) -> None:
    nginx = next(between for between in INTERMEDIARIES if between.package == "nginx")
    if package := nginx.missing():
        assert may_lack(package), f"{package} has to be installed"
        pytest.skip(f"needs {package}")
    with TemporaryDirectory(prefix="reach-", ignore_cleanup_errors=True) as folder:
        status, detail = asyncio.run(_ask(Path(folder), server.port, configured))
    if damage is None:
        assert status == 101
    else:
        assert status == 426
        assert DAMAGES[damage] in detail


async def _ask(folder: Path, port: int, configured: str) -> tuple[int, str]:
    own = free_port()
    home = own_folder(folder, "nginx")
    proxy = await Group.start(nginx_plain(home, Ports(own, port, port, own), configured), home)
    try:
        await proxy.listening(own)
        return await asyncio.to_thread(_handshake, own)
    finally:
        await proxy.stop()


def _handshake(port: int) -> tuple[int, str]:
    client = Client("127.0.0.1", port)
    try:
        client.request(
            "GET", "/push/channels/a", Upgrade="websocket", Connection="Upgrade",
            Sec_WebSocket_Version="13", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        status, _ = client.head()
        return status, "" if status == 101 else json.loads(client.until(b"}") + b"}")["detail"]
    finally:
        client.close()
