"""Signals that arrive while a process starts: none is lost, and none ends it that should not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from .harness import KEY, MS, PATIENCE_S, Server
from .test_deploy import may_make_namespaces, python_in

ALONE, WORKERS = (), ("--workers", "2")

linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux to see which signals are handled"
)


def started(state_dir: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pushcompat", "--port", "0", "--state-dir", str(state_dir), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": KEY}
    )


def survives(pid: int, number: int) -> bool:
    """Whether the process handles, ignores or blocks the signal now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


@linux
@pytest.mark.parametrize("options", [ALONE, WORKERS])
def test_a_reload_that_is_asked_for_during_the_start_is_done_after_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """SIGHUP every few milliseconds, from the moment in which the first of our code has run."""
    served = threading.Event()

    def bother(process: subprocess.Popen[bytes]) -> None:
        while not served.wait(5 * MS):
            if survives(process.pid, signal.SIGTERM):
                process.send_signal(signal.SIGHUP)

    with started(tmp_path, *options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        bothering = threading.Thread(target=bother, args=[process])
        bothering.start()
        try:
            first = process.stdout.readline()
            served.set()
            bothering.join(PATIENCE_S)
            assert b"listens on" in first, process.stderr.read()
            while b" reload " not in (line := process.stderr.readline()):
                assert line
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        finally:
            served.set()
            process.kill()


@linux
def test_signals_are_handled_before_anything_is_imported(tmp_path: Path) -> None:
    """The modules that take time, of clients and servers, are not loaded by then."""
    code = (
        "import sys, pushcompat.__main__; print(sorted({'ssl', 'http.client', 'click', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("options", [ALONE, WORKERS])
def test_a_stop_during_the_start_ends_it_without_a_traceback(tmp_path: Path, options: tuple[str, ...]) -> None:
    for number in range(12):
        with started(tmp_path, *options) as process:
            timer = threading.Timer(number * 40 * MS, process.terminate)
            timer.start()
            try:
                _, errors = process.communicate(timeout=PATIENCE_S)
            finally:
                timer.cancel()
                process.kill()
        assert process.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM), errors
        assert b"Traceback" not in errors


@pytest.mark.skipif(not may_make_namespaces(), reason="needs unshare, and the right to use it")
def test_process_1_of_a_container_can_be_stopped_as_soon_as_its_first_line_has_run(tmp_path: Path) -> None:
    """Without an init, and without signals that its image holds back: the kernel discards what has no handler."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--", sys.executable, "-m", "pushcompat"]
    for _ in range(10):
        with subprocess.Popen([*command, "--port", "0", "--state-dir", str(tmp_path)]) as process:
            try:
                pid = python_in(process.pid)
                deadline = time.monotonic() + PATIENCE_S
                while not survives(pid, signal.SIGTERM):
                    assert time.monotonic() < deadline
                os.kill(pid, signal.SIGTERM)
                assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
            finally:
                process.kill()


@linux
def test_a_closed_terminal_ends_a_client(server: Server) -> None:
    command = [sys.executable, "-m", "pushcompat", "listen", "--url", server.url, "chat"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            server.wait_for_log(" subscribe channels=chat ")
            process.send_signal(signal.SIGHUP)
            assert process.wait(PATIENCE_S) == -signal.SIGHUP
        finally:
            process.kill()


def test_an_application_imports_what_it_names_and_nothing_else_is_there() -> None:
    code = (
        "from pushcompat import publish, PublishError; import pushcompat; print(publish.__module__, pushcompat.nothing)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "module 'pushcompat' has no attribute 'nothing'" in done.stderr
