"""What clients send, as fast as they can: the server takes what it needs, and leaves the rest with them."""

from __future__ import annotations

import json
import socket
from collections import Counter
from contextlib import ExitStack

import pytest

from ..harness import KEY, Client, Server, client_frame

MIB = 1024 * 1024

CHATTER = {
    "pings": client_frame(0x89),
    "pongs": client_frame(0x8A),
    "empty messages": client_frame(0x81),
    "empty fragments": client_frame(0x01) + client_frame(0x00) * 50 + client_frame(0x80),
}


def flooder(server: Server, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(server.connect())
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    assert client.upgrade("/channels/other") == 101
    client.socket.setblocking(False)
    return client.socket


class Flood:
    """Whole messages over and over; a short send is gone on with."""

    def __init__(self, sock: socket.socket, message: bytes) -> None:
        self._socket = sock
        self._data = message * (64 * 1024 // len(message))
        self._at = 0
        self.sent = 0

    def send(self) -> None:
        """As much as is taken at once."""
        try:
            for _ in range(1000):
                size = self._socket.send(self._data[self._at :])
                self._at = (self._at + size) % len(self._data)
                self.sent += size
        except BlockingIOError:
            pass


@pytest.mark.parametrize("chatter", CHATTER)
def test_a_websocket_is_not_read_as_fast_as_its_client_sends(server: Server, chatter: str) -> None:
    """Of 10 clients the kernel holds what it holds, and the server reads a little: order, and not time, is compared."""
    with ExitStack() as stack:
        floods = [Flood(flooder(server, stack), CHATTER[chatter]) for _ in range(10)]
        listener = stack.enter_context(server.connect())
        publisher = stack.enter_context(server.connect())
        assert listener.upgrade("/channels/chat") == 101
        for _ in range(3):  # until the kernel's buffers are full
            for flood in floods:
                flood.send()
            exchange(publisher, listener, "warm-up")
        before = sum(flood.sent for flood in floods)
        for number in range(100):
            for flood in floods:
                flood.send()
            exchange(publisher, listener, str(number))
        assert sum(flood.sent for flood in floods) - before < 2 * MIB


def exchange(publisher: Client, listener: Client, text: str) -> None:
    """One message, from a publisher to a subscriber who has nothing to do with the flood."""
    publisher.publish("chat", text.encode())
    assert publisher.response()[0] == 200
    assert listener.frame() == (0x81, text.encode())


# Heads

TOO_MANY = {
    "empty parameters": ("&" * 7500, "", 400),
    "parameters": ("&".join(["x=y"] * 65), "", 400),
    "escaped parameters": ("%41=%41&" * 1500, "", 400),
    "lines of one field": ("", "X: y\r\n" * 2000, 431),
    "empty lines of one field": ("", "X:\r\n" * 3700, 431),
    "lines": ("", "".join(f"X-{number}: y\r\n" for number in range(100)), 431),
}


@pytest.mark.parametrize("target", ["GET /channels/chat", "POST /channels/chat", "OPTIONS /channels/chat"])
@pytest.mark.parametrize("kind", TOO_MANY)
def test_a_head_that_costs_much_is_refused_with_what_is_allowed(shared_client: Client, target: str, kind: str) -> None:
    query, lines, expected = TOO_MANY[kind]
    fields = f"Host: h\r\nAuthorization: Bearer {KEY}\r\n{lines}"
    shared_client.send(f"{target}?{query} HTTP/1.1\r\n{fields}\r\n".encode())
    status, _, detail = shared_client.problem()
    assert status == expected
    assert ("64 parameters" if expected == 400 else "100 header fields") in detail


@pytest.mark.parametrize(("verb", "length"), [("GET", ""), ("POST", "Content-Length: 0\r\n")])
@pytest.mark.parametrize("query", ["x=y&" * 63 + "wait=0", "&" * 57 + "wait=0&" + "%41=%41&" * 5])
def test_a_head_with_as_much_as_is_allowed_is_taken(shared_client: Client, query: str, verb: str, length: str) -> None:
    assert query.count("&") == 63
    own = f"Host: h\r\nAuthorization: Bearer {KEY}\r\n{length}"
    more = "".join(f"X-{number}: y\r\n" for number in range(100 - own.count("\r\n")))
    shared_client.send(f"{verb} /channels/fits?{query} HTTP/1.1\r\n{own}{more}\r\n".encode())
    assert shared_client.response()[0] == 200


# Pollers


@pytest.mark.options("--poll-grace", "600")
def test_only_the_last_10000_absent_pollers_are_counted(server: Server) -> None:
    cursor = server.publish("any", "x")["id"]
    for number in range(200):  # 64 channels each
        names = ",".join(f"made-up-{name}" for name in range(number * 64, number * 64 + 64))
        with server.connect() as client:
            client.send(f"GET /channels/{names}?cursor={cursor}&wait=0 HTTP/1.0\r\n\r\n".encode())
            assert client.to_end().startswith(b"HTTP/1.1 200")
    counted = Counter(
        server.publish(f"made-up-{name}", "x")["channels"][f"made-up-{name}"]["subscribers"]
        for name in (0, 1000, 2799, 2800, 8000, 12_799)
    )
    assert counted == {0: 3, 1: 3}


def test_polls_without_a_position_make_no_channels(server: Server) -> None:
    with server.connect() as client:
        for number in range(200):
            client.poll(",".join(f"made-up-{name}" for name in range(number * 64, number * 64 + 64)))
    assert server.metric("pushcompat_channels") == 0


def test_a_poller_that_looks_at_a_page_between_two_polls_is_still_a_subscriber(server: Server) -> None:
    with server.connect() as client:
        cursor = server.publish("chat", "x")["id"]
        client.poll("chat", f"cursor={cursor}")
        client.request("GET", "/healthz")
        assert client.response()[2] == b"ok\n"
        assert server.publish("chat", "x")["channels"] == {"chat": {"subscribers": 1}}
        client.poll("chat", f"cursor={cursor}")
        assert server.publish("chat", "x")["channels"] == {"chat": {"subscribers": 1}}


# Bodies


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_a_request_of_http_1_0_with_chunks_is_the_connections_last(server: Server, verb: str) -> None:
    head = (
        f"{verb} /channels/chat?wait=0 HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer {KEY}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    with server.connect() as client:
        client.send(head + b"5\r\nhello\r\n0\r\n\r\n" + b"POST /channels/chat HTTP/1.1\r\nHost: h\r\n\r\n")
        status, fields, _ = client.response()
        assert fields.get("connection") != "keep-alive"
        assert status in (200, 400)
        assert client.to_end() == b""
    assert server.metric("pushcompat_publishes_total") == (verb == "POST")


def test_a_message_of_a_batch_may_be_as_large_as_the_limit(server: Server) -> None:
    with server.connect() as client:
        for size, expected in ((60 * 1024, 200), (60 * 1024 + 1, 413)):
            body = json.dumps([{"channel": "large", "data": "x" * size}, {"channel": "small"}]).encode()
            client.request(
                "POST", "/channels", body, Authorization=f"Bearer {KEY}", Content_Type="application/json"
            )  # fmt: skip
            assert client.response()[0] == expected
        assert [len(message["data"]) for message in client.retained("large")] == [60 * 1024]


def test_an_encoding_that_changes_nothing_is_taken(server: Server) -> None:
    with server.connect() as client:
        for name, expected in (("identity", 200), ("", 200), ("gzip", 415)):
            client.publish("chat", b"x", Content_Encoding=name)
            assert client.response()[0] == expected
