"""Further servers to compare with, where they can be had: Centrifugo (needs Go) and the bare ``ws`` library (Node.js).

Both are installed at their first use, in the versions below, into this folder: ``build/`` and ``peers/node_modules``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import CENTRIFUGO, WS, BenchError, Server, Starter, family, free_port, running

HERE = Path(__file__).parent
CENTRIFUGO_VERSION = "v6.9.1"
CENTRIFUGO_PROGRAM = HERE / "build" / "centrifugo"
GO = Path("/usr/local/go/bin")  # where Go's own archive is unpacked; often not in PATH
WS_FOLDER = HERE / "peers"
VERSIONS = {
    CENTRIFUGO: CENTRIFUGO_VERSION,
    WS: json.loads((WS_FOLDER / "package.json").read_text())["dependencies"]["ws"],
}

# The transports that need no library on the client's side, the same history per channel and heartbeat as ours.
CENTRIFUGO_CONFIG: dict[str, Any] = {
    "log": {"level": "error"},
    "usage_stats": {"disabled": True},
    "client": {"allow_anonymous_connect_without_token": True, "allowed_origins": ["*"], "ping_interval": "15s"},
    "channel": {
        "without_namespace": {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "history_size": 100,
            "history_ttl": "1h",
        }
    },
    "http_api": {"key": "bench", "error_mode": "transport"},
    "uni_websocket": {"enabled": True},
    "uni_sse": {"enabled": True},
}


def install(name: str) -> Starter | None:
    """How to start this peer, or None if this machine has no Go or no npm."""
    return {CENTRIFUGO: _install_centrifugo, WS: _install_ws}[name]()


def _install_centrifugo() -> Starter | None:
    go = shutil.which("go") or shutil.which("go", path=str(GO))
    if not CENTRIFUGO_PROGRAM.exists():
        if not go:
            return None
        print("installing Centrifugo (its build takes two minutes) …", flush=True)
        module = f"github.com/centrifugal/centrifugo/v6@{CENTRIFUGO_VERSION}"
        _install([go, "install", module], env={**os.environ, "GOBIN": str(CENTRIFUGO_PROGRAM.parent)})
    return centrifugo


def _install_ws() -> Starter | None:
    if not (shutil.which("npm") and shutil.which("node")):
        return None
    if not (WS_FOLDER / "node_modules").exists():
        _install(["npm", "ci", "--no-audit", "--no-fund", "--silent"])
    return ws


def _install(command: list[str], env: dict[str, str] | None = None) -> None:
    if subprocess.run(command, cwd=WS_FOLDER, env=env, check=False).returncode:
        raise BenchError(f"{' '.join(command)} failed (above); --peers none goes without")


@contextmanager
def centrifugo(folder: Path) -> Iterator[Server]:
    port, config = free_port(), folder / "centrifugo.json"
    address = {"http_server": {"address": "127.0.0.1", "port": port}}
    config.write_text(json.dumps(CENTRIFUGO_CONFIG | address))
    with running([str(CENTRIFUGO_PROGRAM), "--config", str(config)], port, folder) as process:
        yield Server("centrifugo", port, CENTRIFUGO_CONFIG["http_api"]["key"], family(process.pid))


@contextmanager
def ws(folder: Path) -> Iterator[Server]:
    """It speaks Nchan's dialect: bare payloads, the same kind of URLs."""
    port = free_port()
    with running(["node", str(WS_FOLDER / "ws.js"), str(port)], port, folder) as process:
        yield Server("nchan", port, "", family(process.pid))
