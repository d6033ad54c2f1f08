"""examples/flask_answer.py in a browser: each token of an answer is shown once, whatever happens meanwhile."""

from __future__ import annotations

import os
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
# Undefined while the page is being loaded again
SHOWN = "document.getElementById('answer')?.textContent"
END = "document.getElementById('end')?.textContent"
PUBLISHED = "pushcompat_messages_total"
MANY = "".join(f"{number} " for number in range(5000))
# The example with another model, or with a fault
LONG = """
def model(question):
    for number in range(5000):
        time.sleep(0.005 if number % 10 == 0 else 0)
        yield f"{number} "
flask_answer.model = model
"""
FAILING = """
def model(question):
    for _ in range(200):
        time.sleep(0.01)
        yield "word "
    raise ConnectionError("the model is away")
flask_answer.model = model
"""
FORGETFUL = """
calls = itertools.count()
publish = flask_answer.push
flask_answer.push = lambda *given: None if next(calls) == 20 else publish(*given)
"""


class TransportProxy(Proxy):
    """Lets all transports through until it is told otherwise."""

    refuses: tuple[bytes, ...] = ()  # transports

    def pump(self, source: socket, sink: socket) -> None:
        try:
            while data := source.recv(65536):
                if any(transport in data.partition(b"\r\n\r\n")[0] for transport in self.refuses):
                    break
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            with suppress(OSError):  # it has ended already
                sock.shutdown(SHUT_RDWR)


class Stage:
    """The application, the push server, and a network between it and pages."""

    def __init__(self, url: str, server: Server, network: TransportProxy, chromium: Profile) -> None:
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
        page.evaluate("window.was = 'not loaded again'")
        return page

    def open(self) -> Page:
        return self._chromium.open(self.url)


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, chromium: Profile, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """``parametrize("stage", [change], indirect=True)`` changes the example."""
    port, module = free_port(), tmp_path / "answer.py"
    change = getattr(request, "param", "")
    module.write_text(f"import itertools, time\nimport flask_answer\nfrom flask_answer import app\n{change}")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)
    options = ("--config", str(EXAMPLES / "answers.toml"), "--cors-origin", f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "flask", "--app", str(module), "run", "--port", str(port)]
    for server in running(tmp_path / "state", *options):
        with TransportProxy(server.port) as network:
            monkeypatch.setenv("PUSHCOMPAT_PUBLIC_URL", network.url)
            with serving(command, port, server.url, tmp_path) as url:
                yield Stage(url, server, network, chromium)


def is_in_the_middle(page: Page) -> bool:
    return page.evaluate(END) == ""


def assert_shows_all(page: Page, whole: str = WHOLE) -> None:
    page.wait_for(f"{END} == 'That is all.'")
    assert page.evaluate(SHOWN) == whole


def assert_was_not_loaded_again(page: Page) -> None:
    """The channel brought everything, not the application."""
    assert page.evaluate("window.was") == "not loaded again"


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


@pytest.mark.parametrize(
    ("transport", "refused"), [("eventsource", [b"websocket"]), ("longpoll", [b"websocket", b"eventsource"])]
)
def test_a_change_of_transport_in_the_middle_loses_and_repeats_nothing(
    transport: str, refused: list[bytes], stage: Stage
) -> None:
    page = stage.ask()
    stage.network.refuses = tuple(refused)
    stage.network.hang_up_on_clients()
    stage.server.wait_for_metric(f'pushcompat_subscriptions{{transport="{transport}"}}', 1)
    assert is_in_the_middle(page)
    assert_shows_all(page)
    assert_was_not_loaded_again(page)


def test_a_dropped_network_in_the_middle_loses_and_repeats_nothing(stage: Stage) -> None:
    page = stage.ask()
    stage.network.cut()
    stage.server.wait_for_metric('pushcompat_subscriptions{transport="websocket"}', 0, 0)
    stage.server.wait_for_metric(PUBLISHED, stage.server.metric(PUBLISHED) + 5)  # which the page can not have got
    assert is_in_the_middle(page)
    stage.network.mend()
    assert_shows_all(page)
    assert_was_not_loaded_again(page)


@pytest.mark.parametrize("stage", [LONG], indirect=True)
def test_an_answer_of_thousands_of_tokens_survives_all_of_it(stage: Stage) -> None:
    page = stage.ask()
    page.call("Page.reload")
    page.wait_for(f"document.readyState == 'complete' && {SHOWN}.length > 200")
    stage.network.cut()
    stage.network.refuses = (b"websocket",)
    stage.network.mend()
    stage.server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 1)
    assert is_in_the_middle(page)
    assert_shows_all(page, MANY)


@pytest.mark.parametrize("stage", [FAILING], indirect=True)
def test_a_failure_of_the_model_is_shown_after_what_it_has_said(stage: Stage) -> None:
    page = stage.ask()
    page.wait_for(f"{END} == 'The model failed: ask again.'")
    assert page.evaluate(SHOWN) == "word " * 200
    assert_was_not_loaded_again(page)


@pytest.mark.parametrize("stage", [FORGETFUL], indirect=True)
def test_tokens_that_were_never_published_come_from_the_application(stage: Stage) -> None:
    page = stage.ask()
    assert_shows_all(page)
    assert page.evaluate("window.was") is None


def test_a_page_that_comes_after_the_end_shows_it(stage: Stage) -> None:
    assert_shows_all(stage.ask())
    page = stage.open()
    assert page.evaluate(END) == "That is all."
    assert page.evaluate(SHOWN) == WHOLE
