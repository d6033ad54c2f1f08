"""The table "When the push server is away" of docs/applications.md: each row is run."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, build_opener

import pytest
from flask import Flask

from pushcompat.contrib.flask import Push

from ..harness import KEY, PATIENCE_S, Server
from ..stub import Stub, Talk
from ..test_examples import application, free_port, no_php, serving
from .django.conftest import empty_database, with_settings
from .ending import forget

DOCS = Path(__file__).parent.parent.parent / "docs" / "applications.md"
TIMEOUT_S = 0.3  # instead of the documented 2 s

Post = Callable[[], int]  # a request that publishes; returns the status of the response


def rows() -> list[tuple[str, str, str, str]]:
    section = DOCS.read_text().partition("## When the push server is away")[2].partition("\n## ")[0]
    cells = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"]
    return [(name, mode, answered, message) for name, mode, answered, message in cells[2:]]


ROWS = [pytest.param(*row, marks=no_php if row[0] == "PHP" else ()) for row in rows()]


@contextmanager
def django(mode: str, url: str, folder: Path) -> Iterator[Post]:
    from django.test import Client

    with with_settings(URL=url, KEY=KEY, TIMEOUT=TIMEOUT_S, MODE=mode, TEST_OUTBOX=False):
        yield lambda: Client().post("/add").status_code
    empty_database()


@contextmanager
def flask(mode: str, url: str, folder: Path) -> Iterator[Post]:
    app = Flask(__name__)
    app.config.update(PUSHCOMPAT_URL=url, PUSHCOMPAT_KEY=KEY, PUSHCOMPAT_TIMEOUT=TIMEOUT_S)
    app.config.update(PUSHCOMPAT_MODE=mode, PUSHCOMPAT_TEST_OUTBOX=False)
    push = Push(app)

    @app.post("/add")
    def add() -> str:
        push("chat", {"text": "new"})
        return "saved"

    yield lambda: app.test_client().post("/add").status_code
    forget(app.extensions["pushcompat"].options.publisher)


FASTAPI = """
from typing import Annotated
from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse
from pushcompat.contrib.fastapi import Notify, Push

push = Push(mode="{mode}", timeout={timeout})
app = FastAPI(lifespan=push.lifespan)

@app.post("/")
async def add(notify: Annotated[Notify, Depends(push.notify)]) -> RedirectResponse:
    notify("chat", {{"text": "new"}})
    return RedirectResponse("/", 303)
"""


@contextmanager
def fastapi(mode: str, url: str, folder: Path) -> Iterator[Post]:
    (folder / "app.py").write_text(FASTAPI.format(mode=mode, timeout=TIMEOUT_S))
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "app:app", "--port", str(port)]
    with serving(command, port, url, folder) as page:
        yield poster(page)


class Unfollowed(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def poster(page: str) -> Post:
    def post() -> int:
        try:
            build_opener(Unfollowed()).open(page, b"text=new", PATIENCE_S)
        except HTTPError as redirect:
            redirect.close()
            return 200 if redirect.status == 303 else redirect.status
        raise AssertionError("it does not redirect")

    return post


@contextmanager
def php(mode: str, url: str, folder: Path) -> Iterator[Post]:
    with application("php", free_port(), url, folder) as page:
        yield poster(page)


APPLICATIONS = {"Django": django, "Flask": flask, "FastAPI": fastapi, "PHP": php}


@pytest.mark.parametrize(("name", "mode", "answered", "message"), ROWS)
def test_a_server_that_never_answers(name: str, mode: str, answered: str, message: str, tmp_path: Path) -> None:
    given_up = threading.Event()

    def never_answers(talk: Talk) -> None:
        talk.wait_for_end()
        given_up.set()

    stub = Stub(never_answers)
    with APPLICATIONS[name](mode, stub.url, tmp_path) as post:
        assert post() == 200
        if answered == "at once":
            assert not given_up.is_set()  # the request did not wait for it
            assert post() == 200
        else:
            assert re.fullmatch("after 2 s; for the next 5 s at once", answered)
            for _ in range(10):
                assert post() == 200
            if message == "is lost, and logged":
                assert len(stub.talks) == 1


@pytest.mark.parametrize(("name", "mode", "answered", "message"), ROWS)
def test_a_server_that_refuses_connections(
    name: str, mode: str, answered: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with ExitStack() as stack:
        caplog.set_level(logging.ERROR)
        post = stack.enter_context(APPLICATIONS[name](mode, f"http://127.0.0.1:{port}", tmp_path))
        assert post() == 200
        if message == "is lost, and logged":
            log = tmp_path / "log"
            wait_for(lambda: "1 messages were not published" in caplog.text + (log.read_text() if log.exists() else ""))
            return
        assert message == "is published when the server is back"
        server = Server(tmp_path / "state", "--port", str(port))
        stack.callback(server.stop)
        if mode == "outbox":
            from django.core.management import call_command

            call_command("push_outbox", once=True)
        with server.connect() as client:
            wait_for(lambda: [sent["data"] for sent in client.retained("chat")] == [{"text": "new"}])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    timer = threading.Timer(2 * PATIENCE_S, deadline.set)
    timer.start()
    try:
        while not condition():
            assert not deadline.wait(0.02)
    finally:
        timer.cancel()
