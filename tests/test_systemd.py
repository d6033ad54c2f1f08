"""What systemd says to the server, and hears from it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .harness import KEY, PATIENCE_S, Client
from .machine import may_lack

ROOT = Path(__file__).parents[1]
# As systemd does: descriptor 3, for the process that this one becomes.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
ALONE, WORKERS = (), ("--workers", "2")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield sock


def command(state_dir: Path, *options: str) -> list[str]:
    words = ["--publish-key", KEY, "--state-dir", str(state_dir), *options]
    return [sys.executable, "-m", "pushcompat", *words]


@contextmanager
def activated(state_dir: Path, sock: socket.socket, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", ACTIVATE, str(sock.fileno()), *command(state_dir, *options)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[sock.fileno()]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("options", [ALONE, WORKERS])
def test_sockets_that_systemd_has_bound_stay_open_through_a_restart(
    tmp_path: Path, listener: socket.socket, options: tuple[str, ...]
) -> None:
    host, port = listener.getsockname()
    for _ in range(2):
        with Client(host, port) as early:  # before the server runs, or while it restarts
            early.request("GET", "/readyz")
            with activated(tmp_path, listener, "--port", "1", *options) as process:
                assert process.stdout is not None
                assert f"listens on http://127.0.0.1:{port}" in process.stdout.readline().decode()
                assert early.response()[0] == 200
                process.terminate()
                assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("options", [ALONE, WORKERS])
def test_a_socket_that_takes_no_connections_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, activated(tmp_path, sock, *options) as process:
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"pushcompat: the socket unit must have ListenStream= and Accept=no\n")
        assert process.wait(PATIENCE_S) == 2


@pytest.mark.parametrize("options", [ALONE, WORKERS])
def test_the_server_notifies_systemd_of_ready_watchdog_and_stopping(tmp_path: Path, options: tuple[str, ...]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE_S)
        manager.bind(str(tmp_path / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        words = command(tmp_path, "--port", "0", *options)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            try:
                assert process.stdout is not None
                while (said := manager.recv(100)) != b"READY=1":
                    assert said == b"WATCHDOG=1"
                assert b"listens on" in process.stdout.readline()
                assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
                process.terminate()
                while (said := manager.recv(100)) != b"STOPPING=1":
                    assert said == b"WATCHDOG=1"
                assert process.wait(PATIENCE_S) == 0
            finally:
                process.kill()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None and may_lack("systemd"), reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", ["pushcompat.service", "pushcompat.socket"])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, unit: str) -> None:
    program = tmp_path / "pushcompat"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in (ROOT / "deploy").glob("pushcompat.*"):
        text = file.read_text()
        if file.suffix in (".service", ".socket"):
            (tmp_path / file.name).write_text(text.replace("/opt/pushcompat/bin/pushcompat", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    about_ours = [line for line in done.stderr.splitlines() if "pushcompat" in line]
    assert (done.returncode, about_ours) == (0, [])
