"""The server with TLS. HAProxy, on the load's core, makes a TLS connection of each plain one of the load generator."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from servers import LOAD_CORE, ROOT, Server, Starter, free_port, pushcompat, running

TLS = "TLS"
CERTIFICATE = ROOT / "tests" / "tls.pem"  # P-256

_CONFIG = """
global
    maxconn 9500
    ssl-server-verify none
defaults
    mode tcp
    timeout connect 30s
    timeout client 10m
    timeout server 10m
frontend plain
    bind 127.0.0.1:{front} backlog 4096
    default_backend encrypted
backend encrypted
    server one 127.0.0.1:{port} ssl verify none no-ssl-reuse
"""


def starters(checkout: Path) -> dict[str, Starter]:
    """Only where HAProxy is installed."""
    return {TLS: _behind_haproxy(checkout)} if shutil.which("haproxy") else {}


def _behind_haproxy(checkout: Path) -> Starter:
    start_server = pushcompat(checkout, {"--store": "memory:", "--tls-cert": str(CERTIFICATE)})

    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        own, front = folder / "haproxy", free_port()
        own.mkdir()
        with start_server(folder) as server:
            config = own / "haproxy.cfg"
            config.write_text(_CONFIG.format(front=front, port=server.port))
            ask = b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
            with running(["haproxy", "-f", str(config)], front, own, ask=ask, core=LOAD_CORE):
                yield replace(server, port=front)

    return start
