"""Clients that disconnect abruptly, at any time and in any way, must not leak memory or cause errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from ..harness import KEY, Client, Server

TRANSPORTS = ("websocket", "eventsource", "longpoll")
VANISH: dict[str, Callable[[Client], None]] = {"a FIN": Client.close, "a RST": Client.reset}


def subscribe(client: Client, transport: str, channel: str = "chat") -> None:
    if transport == "websocket":
        assert client.upgrade(f"/channels/{channel}?format=json") == 101
        client.frame()
    elif transport == "eventsource":
        client.request("GET", f"/channels/{channel}?format=json", Accept="text/event-stream")
        client.head()
        client.event()
    else:
        client.request("GET", f"/channels/{channel}?wait=25")


def gauge(transport: str) -> str:
    return f'pushcompat_subscriptions{{transport="{transport}"}}'


def nobody_is_left(server: Server) -> None:
    for transport in TRANSPORTS:
        server.wait_for_metric(gauge(transport), 0, 0)
    server.wait_for_metric("pushcompat_connections", 0, 0)


@pytest.mark.parametrize("how", VANISH)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_subscriber_that_vanishes_is_forgotten(server: Server, transport: str, how: str) -> None:
    clients = [server.connect() for _ in range(20)]
    for client in clients:
        subscribe(client, transport)
    server.wait_for_metric(gauge(transport), 20)
    for client in clients:
        VANISH[how](client)
    nobody_is_left(server)
    assert server.publish("chat", "hello")["channels"]["chat"]["subscribers"] == 0


@pytest.mark.parametrize("how", VANISH)
def test_subscribers_that_vanish_while_a_pass_is_under_way_take_nobody_with_them(server: Server, how: str) -> None:
    """There are more of them than a turn of the loop serves; some have still something to say."""
    body = json.dumps([{"channel": "chat", "data": "x" * 20_000}] * 3).encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(600)]
        for index, client in enumerate(clients):
            subscribe(client, TRANSPORTS[index % 2])
        staying, leaving = clients[::4], clients[1::4] + clients[2::4]
        for client in leaving:
            client.send(b"\x89\x80\x01\x02\x03\x04")
        publisher = stack.enter_context(server.connect())
        publisher.request("POST", "/channels", body, Authorization=f"Bearer {KEY}", Content_Type="application/json")
        for client in leaving:
            VANISH[how](client)
        assert publisher.response()[0] == 200
        for client in staying:  # WebSockets
            assert [client.frame()[0] for _ in range(3)] == [0x81] * 3
    nobody_is_left(server)


HEAD = b"GET /channels/chat HTTP/1.1\r\nHost: test\r\n"
HANDSHAKE = (
    HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PUBLISH = (
    b"POST /channels/chat HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer %b\r\nContent-Type: text/plain\r\n"
    % KEY.encode()
)
MOMENTS = {
    "before a word": b"",
    "in the middle of a head": HEAD,
    "in the middle of a handshake": HANDSHAKE[:-20],
    "right behind a handshake": HANDSHAKE,
    "in the middle of a frame": HANDSHAKE + b"\x81\xfe\x10",
    "in the middle of a message": HANDSHAKE + b"\x01\x80\x01\x02\x03\x04",
    "right behind a goodbye": HANDSHAKE + b"\x88\x80\x01\x02\x03\x04",
    "right behind a breach of the protocol": HANDSHAKE + b"\xff\xff",
    "right behind a subscription to events": HEAD + b"Accept: text/event-stream\r\n\r\n",
    "in the middle of a poll": HEAD.replace(b"chat", b"chat?wait=20") + b"\r\n",
    "with a second poll behind the first": 2 * (HEAD.replace(b"chat", b"chat?wait=20") + b"\r\n"),
    "between two polls": HEAD + b"\r\n",
    "before a body": PUBLISH + b"Content-Length: 10\r\n\r\n",
    "in the middle of a body": PUBLISH + b"Content-Length: 10\r\n\r\nhello",
    "in the middle of a chunk": PUBLISH + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "before the answer to a publish": PUBLISH + b"Content-Length: 5\r\n\r\nhello",
    "on the way to a page": b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
    "in the middle of a page's head": b"GET / HTTP/1.1\r\nHost:",
}


@pytest.mark.options("--poll-grace", "0", "--log-level", "debug")
@pytest.mark.parametrize("how", VANISH)
def test_a_client_may_vanish_at_any_moment(server: Server, how: str) -> None:
    for sent in MOMENTS.values():
        client = server.connect()
        client.send(sent)
        VANISH[how](client)  # what the server answered, if it did, is unread
    nobody_is_left(server)
    server.wait_for_log("publish channels=chat")
    assert server.publish("chat", "hello")["channels"]["chat"]["subscribers"] == 0


@pytest.mark.parametrize("how", VANISH)
def test_a_client_that_the_server_has_heard_may_vanish_at_any_moment(server: Server, how: str) -> None:
    for sent in MOMENTS.values():
        client = server.connect()
        client.send(sent)
        with server.connect() as other:  # accepted after the first, and so answered after it was read
            other.request("GET", "/channels/elsewhere")
            assert other.response()[0] == 200
        VANISH[how](client)
    nobody_is_left(server)
