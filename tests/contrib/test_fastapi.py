import logging
from typing import Annotated, Any

import jwt
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pushcompat import AsyncPublisher
from pushcompat.contrib import starlette
from pushcompat.contrib.fastapi import Notify, Push
from pushcompat.contrib.messages import Message
from pushcompat.errors import ConfigError

from ..harness import KEY, Server, sequence
from ..stub import Stub, Talk
from .ending import forget

TOKEN_KEY = "0123456789abcdef" * 4


def application(**options: Any) -> tuple[FastAPI, Push]:
    push = Push(**options)
    app = FastAPI(lifespan=push.lifespan)

    @app.post("/add")
    async def add(notify: Annotated[Notify, Depends(push.notify)]) -> str:
        notify("orders")
        notify("chat", {"text": "new"})
        notify("orders")
        return "saved"

    @app.post("/add-plainly")
    def add_plainly(notify: Annotated[Notify, Depends(push.notify)]) -> str:
        notify("chat", {"text": "new"})
        return "saved"

    @app.post("/fail")
    async def fail(notify: Annotated[Notify, Depends(push.notify)]) -> str:
        notify("chat", "lost")
        raise ValueError("the endpoint fails")

    @app.post("/directly")
    async def directly(publisher: Annotated[AsyncPublisher, Depends(push)]) -> str:
        return (await publisher("chat", "hello")).id

    @app.get("/page")
    async def page(publisher: Annotated[AsyncPublisher, Depends(push)]) -> dict[str, str]:
        return await push.page("orders", "news", sub="ann")

    return app, push


def with_server(server: Server, **options: Any) -> FastAPI:
    return application(url=server.url, key=KEY, test_outbox=False, **options)[0]


def test_messages_are_published_after_the_response_and_folded() -> None:
    app, push = application()
    with TestClient(app) as client:
        assert client.post("/add").json() == "saved"
    assert push.outbox == [Message("chat", {"text": "new"}), Message("orders")]


def test_nothing_is_published_after_an_exception() -> None:
    app, push = application()
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/fail").status_code == 500
    assert not push.outbox


@pytest.mark.parametrize("mode", ["later", "request", "now"])
@pytest.mark.parametrize("path", ["/add", "/add-plainly"])
def test_messages_reach_subscribers(path: str, mode: str, server: Server) -> None:
    with TestClient(with_server(server, mode=mode)) as client, server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        assert client.post(path).json() == "saved"
        assert subscriber.frame() == (0x81, b'{"text":"new"}')


def test_an_endpoint_can_have_the_publisher(server: Server) -> None:
    with TestClient(with_server(server)) as client:
        assert [sequence(client.post("/directly").json()) for _ in range(2)] == [1, 2]


def never_answers(talk: Talk) -> None:
    talk.wait_for_end()


def test_a_failure_to_publish_is_logged_and_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub(never_answers)
    app, _ = application(url=stub.url, key=KEY, test_outbox=False, timeout=0.1, mode="now")
    with TestClient(app) as client:
        for _ in range(20):
            assert client.post("/add").json() == "saved"
    assert len(stub.talks) == 1  # then the circuit breaker
    assert "2 messages were not published: timed out" in caplog.text


def test_a_message_that_is_refused_takes_no_other_with_it(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    push = Push(url=server.url, key=KEY, test_outbox=False, mode="now")
    app = FastAPI(lifespan=push.lifespan)

    @app.post("/add")
    async def add(notify: Annotated[Notify, Depends(push.notify)]) -> None:
        notify("chat", "x" * 70_000)
        notify("chat", "new")

    with TestClient(app) as client, server.connect() as subscriber:
        assert subscriber.upgrade("/channels/chat") == 101
        client.post("/add")
        assert subscriber.frame() == (0x81, b"new")
    assert "1 messages were not published" in caplog.text


def test_what_is_queued_at_the_end_of_the_application_is_published_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    app, push = application(url=Stub(never_answers).url, key=KEY, test_outbox=False)
    drain = push.options.publisher.drain
    push.options.publisher.drain = lambda: drain(0.1)  # type: ignore[method-assign]
    with TestClient(app) as client:
        assert client.post("/add").json() == "saved"
        assert "not published" not in caplog.text
    assert "2 messages were not published: the process ended" in caplog.text
    assert push.options.publisher.stats().dropped == 2
    forget(push.options.publisher)


def test_a_mode_that_needs_a_database_is_refused() -> None:
    with pytest.raises(ConfigError, match="outbox is for Django"):
        Push(mode="outbox")


def test_a_page_gets_the_cursor_and_a_token(server: Server) -> None:
    with TestClient(with_server(server, token_key=TOKEN_KEY, public_url="https://push.example")) as client:
        client.post("/directly")
        given = client.get("/page").json()
    assert (given["url"], sequence(given["cursor"])) == ("https://push.example/channels/orders,news", 1)
    claims = jwt.decode(given["token"], TOKEN_KEY, ["HS256"])
    assert (claims["channels"], claims["sub"]) == (["orders", "news"], "ann")


def test_without_a_push_server_a_page_has_no_cursor(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = application(url="http://127.0.0.1:9", key=KEY, test_outbox=False, timeout=0.1)
    with caplog.at_level(logging.WARNING), TestClient(app) as client:
        assert client.get("/page").json() == {"url": "http://127.0.0.1:9/channels/orders,news"}
    assert "a page subscribes without a cursor" in caplog.text


def test_an_application_without_the_lifespan_says_so() -> None:
    app, _ = application(url="http://127.0.0.1:9")
    client = TestClient(app)
    with pytest.raises(RuntimeError, match=r"lifespan=push\.lifespan"):
        client.post("/directly")


def test_starlette_publishes_after_the_response(server: Server) -> None:
    push = starlette.Push(url=server.url, key=KEY, test_outbox=False)

    async def add(request: Request) -> PlainTextResponse:
        notify = push.notify()
        notify(["chat", "news"], "hello")
        return PlainTextResponse("saved", background=notify.task)

    app = Starlette(routes=[Route("/add", add, methods=["POST"])], lifespan=push.lifespan)
    with TestClient(app) as client, server.connect() as subscriber:
        assert subscriber.upgrade("/channels/news") == 101
        assert client.post("/add").text == "saved"
        assert subscriber.frame() == (0x81, b"hello")
