"""gunicorn ``--preload``: workers are forked from a process that has loaded the application, and has a thread."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pushcompat

from ..harness import PATIENCE_S, Server
from ..test_examples import environment, free_port, wait_for_listener

APP = """
from flask import Flask
from pushcompat.contrib.flask import Push

app = Flask(__name__)
push = Push(app)
with app.app_context():
    push("chat", "loaded")

@app.post("/add")
def add():
    push("chat", "new")
    return "saved"
"""


@contextmanager
def gunicorn(push_url: str, folder: Path) -> Iterator[str]:
    (folder / "app.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}", "app:app"]
    given = {**environment(push_url, folder), "PYTHONPATH": str(Path(pushcompat.__file__).parent.parent)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=given, stdout=log, stderr=log)
        try:
            wait_for_listener(process, port)
            yield f"http://127.0.0.1:{port}/add"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def post(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, b"x"), timeout=PATIENCE_S) as answer:
        assert answer.read() == b"saved"


def test_the_workers_publish_although_no_thread_survives_the_fork(server: Server, tmp_path: Path) -> None:
    with server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        with gunicorn(server.url, tmp_path) as url:
            assert subscriber.frame() == (0x81, b"loaded")
            for _ in range(4):
                post(url)
                assert subscriber.frame() == (0x81, b"new")


def test_what_a_worker_has_queued_when_it_ends_is_logged(tmp_path: Path) -> None:
    with gunicorn(f"http://127.0.0.1:{free_port()}", tmp_path) as url:
        post(url)
    log = (tmp_path / "log").read_text()
    assert log.count("1 messages were not published: the process ended") == 2  # of the master, and of a worker
