from __future__ import annotations

import asyncio

import pytest

from pushcompat import AsyncPublisher, Publisher, PublishRefused, PublishUnavailable

from ..harness import KEY, Server
from ..stub import json_says, refuses, stub


def test_a_page_that_subscribes_from_the_cursor_of_its_render_misses_nothing(server: Server) -> None:
    push = Publisher(server.url, KEY)
    push("page", "before")
    cursor = push.cursor("page")
    push("page", "while it is rendered")
    with server.connect() as client:
        assert [message["data"] for message in client.poll("page", f"cursor={cursor}")["messages"]] == [
            "while it is rendered"
        ]
    push.close()


def test_the_asynchronous_publisher_asks_the_same(server: Server) -> None:
    async def ask() -> str:
        async with AsyncPublisher(server.url, KEY) as push:
            published = await push("page", "x")
            assert await push.cursor() == published.id
            return published.id

    assert asyncio.run(ask())


@pytest.mark.parametrize("key", ["wrong", "pc_abcdefgh_wrong"])
def test_only_publishers_are_told_the_cursor(server: Server, key: str) -> None:
    with pytest.raises(PublishRefused, match="invalid publish key"):
        Publisher(server.url, key).cursor()
    with server.connect() as client:
        client.request("GET", "/cursor")
        assert client.problem()[0] == 401


def test_what_is_no_cursor_is_an_error() -> None:
    for answer in ({"cursor": 7}, {}, [], "x"):
        with (
            stub(json_says(200, answer)) as server,
            pytest.raises(PublishRefused, match="not answer like a push server"),
        ):
            Publisher(server.url, "k").cursor()
    with stub(refuses(503, "busy")) as server, pytest.raises(PublishUnavailable, match="busy"):
        Publisher(server.url, "k", timeout=0.1).cursor()
