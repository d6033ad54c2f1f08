from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pushcompat.contrib.endings import EndOfRequest, has_threads
from pushcompat.contrib.options import Options

from ..harness import PATIENCE_S, Server
from ..test_examples import environment


@pytest.mark.parametrize(
    ("given", "expected"), [({}, False), ({"enable-threads": True}, True), ({"threads": b"4"}, True)]
)
def test_uwsgi_has_threads_only_if_it_was_told_so(
    given: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=given))  # type: ignore[arg-type]
    assert has_threads() == expected
    assert Options().mode == ("later" if expected else "request")
    assert Options(mode="now").mode == "now"


def test_a_function_that_is_frozen_has_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_threads()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    assert not has_threads()


FUNCTION = """
import os, signal
from flask import Flask
from pushcompat.contrib.flask import Push

app = Flask(__name__)
push = Push(app)

@app.post("/add")
def add():
    push("chat", "new")
    return "saved"

assert app.test_client().post("/add").text == "saved"
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_function_that_is_frozen_after_its_answer_has_published(server: Server, tmp_path: Path) -> None:
    given = {**environment(server.url, tmp_path), "AWS_LAMBDA_FUNCTION_NAME": "orders"}
    with server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        process = subprocess.Popen([sys.executable, "-c", FUNCTION], env=given)
        try:
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            assert subscriber.frame() == (0x81, b"new")
        finally:
            process.kill()
            process.wait(PATIENCE_S)


def test_a_queue_that_is_stuck_is_not_waited_for_by_each_request() -> None:
    waited: list[float] = []

    def flush(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) < 3

    end = EndOfRequest(flush, 2.0)
    for _ in range(10):
        end()
    assert waited == [2.0, 2.0, 2.0]
