from __future__ import annotations

import asyncio
import html
import json
import re
from typing import Any

import jwt
import pytest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render as render_page
from django.template import Context, Template, TemplateSyntaxError
from django.test import AsyncClient, Client, RequestFactory

from pushcompat.contrib.django import push_cursor

from ...harness import Server, sequence
from .conftest import TOKEN_KEY, with_server, with_settings


def options_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="pushcompat">(.*?)</script>', page)
    assert found is not None, page
    given: dict[str, Any] = json.loads(found[1])
    return given


@pytest.mark.options("--cors-origin", "*")
def test_a_page_subscribes_from_before_it_was_rendered(server: Server) -> None:
    @push_cursor
    def view(request: HttpRequest) -> HttpResponse:
        server.publish("orders", "while the page is rendered")
        with server.connect() as client:
            assert client.retained("orders")
        return render_page(request, "page.html")

    with with_server(server, TOKEN_KEY=TOKEN_KEY, PUBLIC_URL="https://push.example/"):
        page = view(RequestFactory().get("/")).content.decode()
    assert '<script src="https://push.example/static/pushcompat.js"></script>' in page
    given = options_of(page)
    assert given["url"] == "https://push.example/channels/orders,news"
    with server.connect() as client:
        (message,) = client.poll("orders", f"cursor={given['cursor']}")["messages"]
    assert message["data"] == "while the page is rendered"
    claims = jwt.decode(given["token"], TOKEN_KEY, ["HS256"])
    assert (claims["channels"], claims["sub"], claims["exp"] - claims["iat"]) == (["orders", "news"], "ann", 3600)


def test_one_cursor_serves_the_pages_of_a_second(server: Server) -> None:
    with with_server(server):
        first, second = (options_of(Client().get("/page").content.decode())["cursor"] for _ in range(2))
    assert sequence(first) == sequence(second) == 0  # although a message was published in between


def test_an_asynchronous_view_gets_the_cursor(server: Server) -> None:
    async def ask() -> str:
        response = await AsyncClient().get("/page-async")
        text: str = response.content.decode()
        return text

    with with_server(server):
        assert sequence(asyncio.run(ask())) == 0


def test_without_a_push_server_a_page_is_rendered_without_a_cursor() -> None:
    with with_settings(URL="http://127.0.0.1:9", KEY="k" * 32, TIMEOUT=0.1, TEST_OUTBOX=False):
        assert options_of(Client().get("/page").content.decode()) == {"url": "http://127.0.0.1:9/channels/orders,news"}


def test_in_tests_a_page_asks_no_server() -> None:
    assert options_of(Client().get("/page").content.decode()) == {"url": "http://127.0.0.1:9/channels/orders,news"}


def render(text: str, **context: Any) -> str:
    rendered: str = Template("{% load pushcompat %}" + text).render(Context(context))
    return rendered


def test_the_token_has_the_user_s_key() -> None:
    class User:
        pk = 7
        is_authenticated = True

    request = RequestFactory().get("/")
    request.user = User()  # type: ignore[assignment]
    with with_settings(TOKEN_KEY=TOKEN_KEY):
        given = options_of(render('{% pushcompat "user.7" %}', request=request))
    assert jwt.decode(given["token"], TOKEN_KEY, ["HS256"])["sub"] == "7"


def test_nothing_in_the_document_ends_the_script() -> None:
    with with_settings(PUBLIC_URL='https://push.example/"</script><b>&'):
        page = render('{% pushcompat "orders" %}')
    assert page.count("</script>") == 2
    assert options_of(page)["url"].startswith('https://push.example/"</script><b>&')
    assert html.escape('"</script><b>&') in page


def test_a_tag_without_a_channel_is_an_error() -> None:
    with pytest.raises(TemplateSyntaxError, match="give the pushcompat tag a channel"):
        render("{% pushcompat %}")
    with pytest.raises(ValueError, match="cannot be an element's id"):
        render('{% pushcompat "a" id="><b" %}')
