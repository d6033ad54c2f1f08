"""The server as a whole, as somebody sees it who starts it and uses curl."""

from __future__ import annotations

import json

import pytest

from .harness import Client, Server


def test_an_update_reaches_subscribers_of_all_three_transports(server: Server) -> None:
    with server.connect() as websocket, server.connect() as stream, server.connect() as poller:
        assert websocket.upgrade("/channels/chat") == 101
        stream.request("GET", "/channels/chat", Accept="text/event-stream")
        assert stream.head()[0] == 200
        stream.event()
        stream.event()
        poller.request("GET", "/channels/chat?wait=20")
        server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
        assert server.publish("chat", "hello")["channels"] == {"chat": {"subscribers": 3}}
        assert websocket.frame() == (0x81, b"hello")
        assert stream.event()["data"] == "hello"
        assert [m["data"] for m in json.loads(poller.response()[2])["messages"]] == ["hello"]


@pytest.mark.options("--request-cap", "12")
def test_a_stream_under_a_request_cap_says_how_long_it_lives(client: Client) -> None:
    client.request("GET", "/channels/chat", Accept="text/event-stream")
    client.head()
    assert 8 <= json.loads(client.event()["data"])["lifetime"] <= 10
