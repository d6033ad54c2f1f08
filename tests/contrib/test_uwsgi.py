"""uWSGI without ``enable-threads``: there threads run only while a request does."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import pushcompat

from ..harness import PATIENCE_S, Server
from ..test_examples import environment, free_port, wait_for_listener

APP = """
from flask import Flask
from pushcompat.contrib.flask import Push

app = Flask(__name__)
push = Push(app)

@app.post("/add")
def add():
    push("chat", "new")
    return app.extensions["pushcompat"].options.mode
"""


@pytest.mark.parametrize(("options", "mode"), [((), "request"), (("--enable-threads",), "later")])
def test_each_message_is_published_without_a_further_request(
    options: tuple[str, ...], mode: str, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("uwsgi")),
        "--http-socket",
        f"127.0.0.1:{port}",
        "--module",
        "app:app",
    ]
    given = {**environment(server.url, tmp_path), "PYTHONPATH": str(Path(pushcompat.__file__).parent.parent)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, *options], cwd=tmp_path, env=given, stdout=log, stderr=log)
    try:
        wait_for_listener(process, port)
        with server.connect() as subscriber:
            assert subscriber.upgrade("/channels/chat") == 101
            for _ in range(3):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/add", b"x")
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                    used = answer.read().decode()
                assert subscriber.frame() == (0x81, b"new")
        assert used == mode
    finally:
        process.send_signal(signal.SIGINT)  # SIGTERM starts it anew
        process.wait(PATIENCE_S)
