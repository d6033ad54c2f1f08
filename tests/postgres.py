"""A PostgreSQL server for tests, on a Unix socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .harness import MS, PATIENCE_S
from .machine import may_lack

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))  # Debian's, not in the PATH
no_postgres = pytest.mark.skipif(
    not (PROGRAMS / "postgres").exists() and may_lack("postgresql"), reason="there is no PostgreSQL here"
)


@contextmanager
def postgres() -> Iterator[str]:
    """Yields the folder of its socket, which is the host to connect to, as user ``postgres``."""
    with tempfile.TemporaryDirectory(prefix="pushcompat-postgres-") as folder:
        as_user = []
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "postgres")
            as_user = ["runuser", "-u", "postgres", "--"]
        initdb = [*as_user, str(PROGRAMS / "initdb"), "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, timeout=6 * PATIENCE_S, cwd="/")
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        command = [*as_user, str(PROGRAMS / "postgres"), "-D", f"{folder}/data", *settings]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        try:
            _wait(process, folder)
            yield folder
        finally:
            process.terminate()
            process.wait(6 * PATIENCE_S)


def _wait(process: subprocess.Popen[bytes], folder: str) -> None:
    deadline = time.monotonic() + 3 * PATIENCE_S
    ready = [str(PROGRAMS / "pg_isready"), "-q", "-h", folder]
    while subprocess.run(ready, timeout=PATIENCE_S).returncode != 0:
        assert process.poll() is None, "PostgreSQL ended"
        assert time.monotonic() < deadline, "PostgreSQL does not answer"
        time.sleep(20 * MS)  # it cannot tell when it listens
