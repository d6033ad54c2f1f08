from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from pushcompat import PublishRefused, publish
from pushcompat.client.dial import Endpoint, default_tls

from ..stub import CERTIFICATE, json_says, server_tls, stub

published = json_says(200, {"id": "e0000000-000000000000001", "channels": {"a": {"subscribers": 0}}})


@pytest.fixture
def _trusting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    default_tls.cache_clear()
    yield
    default_tls.cache_clear()


@pytest.mark.parametrize(
    ("url", "secure", "authority", "prefix"),
    [
        ("http://a", False, "a:80", ""),
        ("https://a/", True, "a:443", ""),
        ("https://A.example:1/push/", True, "a.example:1", "/push"),
        ("ws://a/x/y", False, "a:80", "/x/y"),
        ("wss://a", True, "a:443", ""),
        ("http://[::1]:8888", False, "[::1]:8888", ""),
    ],
)
def test_a_url_says_where_the_server_is(url: str, secure: bool, authority: str, prefix: str) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.secure, endpoint.authority, endpoint.prefix) == (secure, authority, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8888",
        "ftp://a",
        "http://",
        "http://a:x",
        "http://a/?q",
        "http://u:p@a",
        "http://a/\n",
        "http://a/b c",
        "http://a..b",
        f"http://{'a' * 64}.example",
        "http+unix://%2Fa%00b",
    ],
)
def test_invalid_urls_are_refused_with_a_message(url: str) -> None:
    with pytest.raises(ValueError, match="server URL"):
        Endpoint.parse(url)


def test_a_host_with_a_dead_address_is_reached_at_its_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(published) as gone:
        pass
    with stub(published) as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (gone.port, server.port)]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
        publish("a", url="http://example.com")
    assert server.talks[0].headers["host"] == "example.com"


@pytest.mark.usefixtures("_trusting")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_trusted_server_is_spoken_to_in_secret(host: str) -> None:
    with stub(published, tls=server_tls()) as server:
        publish("a", "x", url=f"https://{host}:{server.port}", key="k")
    assert server.talks[0].body == b"x"


@pytest.mark.parametrize("trusted", [False, True])
def test_nothing_is_sent_to_a_server_that_can_not_prove_its_name(trusted: bool, request: Any, monkeypatch: Any) -> None:
    if trusted:
        request.getfixturevalue("_trusting")
    with stub(published, tls=server_tls()) as server:
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [address])
        host = "example.com" if trusted else "127.0.0.1"
        with pytest.raises(PublishRefused, match=r"certificate verification failed for .*: (self|Hostname)"):
            publish("a", "x", url=f"https://{host}:{server.port}", key="k")
    assert server.talks == []
