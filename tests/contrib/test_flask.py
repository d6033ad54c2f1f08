from __future__ import annotations

import json
import re
from typing import Any

import jwt
import pytest
from flask import Flask, render_template_string

from pushcompat.contrib.flask import Push
from pushcompat.contrib.messages import Message
from pushcompat.errors import ConfigError

from ..harness import KEY, Server, sequence
from ..stub import Stub, Talk
from .ending import forget

TOKEN_KEY = "0123456789abcdef" * 4


def application(**config: Any) -> tuple[Flask, Push]:
    app = Flask(__name__)
    app.config.from_mapping({f"PUSHCOMPAT_{name}": value for name, value in config.items()})
    push = Push()
    push.init_app(app)

    @app.post("/add")
    def add() -> str:
        push("orders")
        push("chat", {"text": "new"})
        push("orders")
        return "saved"

    @app.post("/fail")
    def fail() -> str:
        push("chat", "lost")
        raise ValueError("the view fails")

    @app.get("/page")
    @push.with_cursor
    def page() -> str:
        return render_template_string('{{ pushcompat("orders", sub="ann") }}')

    return app, push


def with_server(server: Server, **config: Any) -> Flask:
    return application(URL=server.url, KEY=KEY, TEST_OUTBOX=False, **config)[0]


def test_messages_are_published_at_the_end_of_the_request_and_folded() -> None:
    app, push = application()
    with app.app_context():
        assert app.test_client().post("/add").text == "saved"
        assert push.outbox == [Message("chat", {"text": "new"}), Message("orders")]


def test_nothing_is_published_after_an_exception() -> None:
    app, push = application()
    with app.app_context():
        assert app.test_client().post("/fail").status_code == 500
        assert not push.outbox


def test_outside_of_a_request_a_message_is_published_at_once() -> None:
    app, push = application()
    with app.app_context():
        push(["a", "b"], 1, message_key="k", type="t", ttl=2)
        assert push.outbox == [Message(name, 1, "k", "t", 2) for name in ("a", "b")]


@pytest.mark.parametrize("mode", ["later", "request", "now"])
def test_messages_reach_subscribers_in_each_mode(mode: str, server: Server) -> None:
    app = with_server(server, MODE=mode)
    with server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        assert app.test_client().post("/add").text == "saved"
        assert subscriber.frame() == (0x81, b'{"text":"new"}')


def never_answers(talk: Talk) -> None:
    talk.wait_for_end()


@pytest.mark.parametrize("mode", ["request", "now"])
def test_a_frozen_server_delays_one_request_and_fails_none(mode: str) -> None:
    stub = Stub(never_answers)
    app, _ = application(URL=stub.url, KEY=KEY, TEST_OUTBOX=False, MODE=mode, TIMEOUT=0.1)
    for _ in range(20):  # 20 waits for the time-out would be noticed
        assert app.test_client().post("/add").text == "saved"
    if mode == "now":
        assert len(stub.talks) == 1
    forget(app.extensions["pushcompat"].options.publisher)


def test_a_page_subscribes_from_before_it_was_rendered(server: Server) -> None:
    app, push = application(
        URL=server.url, KEY=KEY, TEST_OUTBOX=False, TOKEN_KEY=TOKEN_KEY, PUBLIC_URL="https://push.example"
    )

    @app.get("/late")
    @push.with_cursor
    def late() -> str:
        server.publish("orders", "while the page is rendered")
        with server.connect() as client:
            assert client.retained("orders")
        return render_template_string('{{ pushcompat("orders", sub="ann") }}')

    page = app.test_client().get("/late").text
    found = re.search(r'<script type="application/json" id="pushcompat">(.*?)</script>', page)
    assert found is not None
    given = json.loads(found[1])
    assert (given["url"], sequence(given["cursor"])) == ("https://push.example/channels/orders", 0)
    claims = jwt.decode(given["token"], TOKEN_KEY, ["HS256"])
    assert (claims["channels"], claims["sub"]) == (["orders"], "ann")
    assert '<script src="https://push.example/static/pushcompat.js"></script>' in page


def test_without_a_push_server_a_page_is_rendered_without_a_cursor() -> None:
    app, _ = application(URL="http://127.0.0.1:9", KEY=KEY, TEST_OUTBOX=False, TIMEOUT=0.1, MODE="now")
    assert '{"url": "http://127.0.0.1:9/channels/orders"}' in app.test_client().get("/page").text


@pytest.mark.parametrize(("name", "value"), [("SERVER", "x"), ("MODE", "soon"), ("MODE", "outbox")])
def test_a_mistake_in_the_configuration_is_an_error_at_the_start(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        application(**{name: value})


def test_an_application_that_is_tested_reaches_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.delenv("PYTEST_VERSION")
    app, push = application(URL="http://127.0.0.1:9", KEY=KEY)
    app.testing = True
    with app.app_context():
        push("chat")
        assert push.outbox == [Message("chat")]
