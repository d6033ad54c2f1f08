"""examples/flask_answer.py in a browser: each token of an answer is shown once, whatever happens meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR, socket
from urllib.parse import urlencode
from urllib.request import build_opener

import pytest

from .chromium import Page, Profile, needed
from .harness import PATIENCE_S, Server, running
from .proxy import Proxy
from .test_examples import EXAMPLES, free_port, serving

pytestmark = needed
QUESTION = "why  is the sky <blue>?"
WHOLE = "".join(f"{number}. You asked: {QUESTION}\n" for number in range(1, 41))
SHOWN = "document.getElementById('answer').textContent"
END = "document.getElementById('end').textContent"


class WebSocketProxy(Proxy):
    """Lets WebSockets through until it is told otherwise."""

    refuses = False

    def pump(self, source: socket, sink: socket) -> None:
        try:
            while data := source.recv(65536):
                if self.refuses and b"websocket" in data.partition(b"\r\n\r\n")[0]:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            with suppress(OSError):  # it has ended already
                sock.shutdown(SHUT_RDWR)


class Stage:
    """The application, the push server, and a network between it and pages."""

    def __init__(self, url: str, server: Server, network: WebSocketProxy, chromium: Profile) -> None:
        self._url = url
        self.server = server
        self.network = network
        self._chromium = chromium

    def ask(self) -> Page:
        """The page of a new answer, in the middle of it."""
        begun = build_opener().open(self._url, urlencode({"question": QUESTION}).encode(), PATIENCE_S)
        self.url: str = begun.url
        page = self.open()
        page.wait_for(f"{SHOWN}.length > 200")
        return page

    def open(self) -> Page:
        return self._chromium.open(self.url)


@pytest.fixture
def stage(tmp_path: Path, chromium: Profile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    port = free_port()
    options = ("--config", str(EXAMPLES / "answers.toml"), "--cors-origin", f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLES / "flask_answer.py"), "run", "--port", str(port)]
    for server in running(tmp_path / "state", *options):
        with WebSocketProxy(server.port) as network:
            monkeypatch.setenv("PUSHCOMPAT_PUBLIC_URL", network.url)
            with serving(command, port, server.url, tmp_path) as url:
                yield Stage(url, server, network, chromium)


def is_in_the_middle(page: Page) -> bool:
    return page.evaluate(END) == ""


def assert_shows_all(page: Page) -> None:
    page.wait_for(f"{END} == 'That is all.'")
    assert page.evaluate(SHOWN) == WHOLE


def test_an_answer_appears_token_by_token(stage: Stage) -> None:
    page = stage.ask()
    shown = page.evaluate(f"{SHOWN}.length")
    page.wait_for(f"{SHOWN}.length > {shown}")
    assert is_in_the_middle(page)
    assert_shows_all(page)


def test_a_reload_and_a_second_tab_in_the_middle_lose_and_repeat_nothing(stage: Stage) -> None:
    page = stage.ask()
    page.call("Page.reload")
    other = stage.open()
    assert is_in_the_middle(other)
    assert_shows_all(page)
    assert_shows_all(other)


def test_a_change_of_transport_in_the_middle_loses_and_repeats_nothing(stage: Stage) -> None:
    page = stage.ask()
    stage.network.refuses = True
    stage.network.hang_up_on_clients()
    stage.server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 1)
    assert is_in_the_middle(page)
    assert_shows_all(page)


def test_a_dropped_network_in_the_middle_loses_and_repeats_nothing(stage: Stage) -> None:
    page = stage.ask()
    stage.network.cut()
    stage.server.wait_for_metric('pushcompat_subscriptions{transport="websocket"}', 0)
    assert is_in_the_middle(page)
    stage.network.mend()
    assert_shows_all(page)


def test_a_page_that_comes_after_the_end_shows_it(stage: Stage) -> None:
    assert_shows_all(stage.ask())
    page = stage.open()
    assert page.evaluate(END) == "That is all."
    assert page.evaluate(SHOWN) == WHOLE
