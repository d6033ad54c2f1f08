"""TLS from end to end: all transports, pages, publishes, and what is not TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .harness import CERTIFICATE, Client, Server, running

TLS = ("--tls-cert", str(CERTIFICATE))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("tls"), *TLS, "--demo")


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.connect() as client:
        yield client


def test_one_connection_is_used_for_publishes_polls_and_pages(server: Server, client: Client) -> None:
    for number in range(5):
        client.publish("mixed", b"x" * 40_000)
        assert client.response()[0] == 200
        client.request("GET", "/healthz")
        assert client.response()[2] == b"ok\n"
        assert len(client.retained("mixed")) == number + 1


def test_plain_http_is_answered_with_a_sentence_in_plain_text(server: Server) -> None:
    for method in ("GET", "POST", "OPTIONS", "BREW"):
        with Client(server.host, server.port) as client:
            client.request(method, "/channels/a", b"x" * 50_000)
            status, fields, body = client.response()
            assert (status, fields["content-type"]) == (400, "text/plain; charset=utf-8")
            assert body == b"This port speaks TLS: use https:// instead of http://, and wss:// instead of ws://.\n"
            assert client.to_end() == b""


def test_a_page_knows_that_it_is_served_over_tls(client: Client) -> None:
    client.request("GET", "/demo/chat/comments")
    assert json.loads(client.response()[2]) == {"comments": []}
