"""Limits by address and by key, at a real server; 127.0.0.0/8 has many addresses."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from pushcompat import PublishUnavailable, publish, publish_async

from ..harness import CERTIFICATE, KEY, PATIENCE_S, Client, Server, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have 127.0.0.1 only")

NOISY, QUIET = "127.0.0.2", "127.0.0.3"
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
TOO_MANY = "this address has 3 connections, the maximum; close some, or try again later"


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def subscribed(server: Server, clients: ExitStack, source: str = "", channel: str = "a", **headers: str) -> Client:
    client = clients.enter_context(server.connect(source=source))
    client.request("GET", f"/channels/{channel}?transport=eventsource", **headers)
    assert client.head()[0] == 200
    return client


@pytest.mark.options("--trusted-proxies", "none", "--max-connections-per-address", "3")
def test_an_address_with_too_many_connections_gets_429_and_others_do_not_notice(
    server: Server, clients: ExitStack
) -> None:
    held = [subscribed(server, clients, NOISY) for _ in range(3)]
    for query in ("transport=eventsource", "wait=0&cursor=earliest"):
        client = clients.enter_context(server.connect(source=NOISY))
        client.request("GET", f"/channels/a?{query}")
        status, headers, detail = client.problem()
        assert (status, headers["retry-after"], headers["connection"], detail) == (429, "5", "close", TOO_MANY)
        assert client.to_end() == b""
    client = clients.enter_context(server.connect(source=NOISY))
    client.request("GET", "/channels/a", **HANDSHAKE)
    assert client.head()[0] == 101
    first, payload = client.frame()
    assert (first, int.from_bytes(payload[:2], "big"), payload[2:].decode()) == (0x88, 4129, TOO_MANY)
    held.append(subscribed(server, clients, QUIET))
    client = clients.enter_context(server.connect(source=NOISY))
    client.publish("a", b"for all")
    assert client.response()[0] == 200, "publishers have a margin"
    for client in held:
        assert b"for all" in client.until(b"for all") + b"for all"
    assert server.metric('pushcompat_limited_total{limit="connections_per_address"}') == 3
    assert server.metric('pushcompat_refused_total{reason="too_many_requests",status="429"}') == 3
    assert server.metric("pushcompat_max_connections_per_address") == 3
    assert re_address(server.wait_for_log("refused status=429")) == NOISY


def re_address(line: str) -> str:
    return line.partition("address=")[2].split()[0]


@pytest.mark.options("--trusted-proxies", "none", "--max-connections-per-address", "2")
def test_a_closed_connection_makes_room_whatever_it_was(server: Server, clients: ExitStack) -> None:
    for end in ("stream", "page", "half a page", "reset"):
        with ExitStack() as some:
            held = [some.enter_context(server.connect(source=NOISY)) for _ in range(2)]
            for client in held:
                if end == "page":
                    client.request("GET", "/healthz")
                    assert client.response()[0] == 200
                elif end == "half a page":
                    client.send(b"GET /healthz HTTP/1.0\r\nHost: test\r\n\r\n")
                    client.to_end()
                else:
                    client.request("GET", "/channels/a?transport=eventsource")
                    assert client.head()[0] == 200
                if end == "reset":
                    client.reset()
        server.wait_for_metric("pushcompat_addresses", 1, 1)  # of the metrics' own connection
    subscribed(server, clients, NOISY)


@pytest.mark.options("--trusted-proxies", "none", "--max-connections-per-address", "8")
def test_beyond_the_margin_connections_are_refused_before_they_send_anything(
    server: Server, clients: ExitStack
) -> None:
    silent = [clients.enter_context(server.connect(source=NOISY)) for _ in range(8 + 1 + 16)]
    server.wait_for_metric("pushcompat_connections", 8 + 1 + 16)
    client = clients.enter_context(server.connect(source=NOISY))
    status, headers, _ = client.problem()
    assert (status, headers["retry-after"], headers["connection"]) == (429, "5", "close")
    assert client.to_end() == b""
    subscribed(server, clients, QUIET)
    silent[0].close()
    server.wait_for_metric("pushcompat_connections", 0, 8 + 16 + 2)
    client = clients.enter_context(server.connect(source=NOISY))
    client.request("GET", "/healthz")
    assert client.response()[0] == 200


@pytest.mark.options("--trusted-proxies", "none", "--handshake-rate", "0.5")
def test_an_address_that_opens_connections_too_fast_gets_429(server: Server, clients: ExitStack) -> None:
    for _ in range(6):
        with server.connect(source=NOISY) as client:
            client.request("GET", "/healthz")
            assert client.response()[0] == 200
    with server.connect(source=NOISY) as client:
        status, headers, detail = client.problem()
    assert (status, headers["retry-after"]) == (429, "1")
    assert "opened too fast" in detail
    subscribed(server, clients, QUIET)
    assert server.metric('pushcompat_limited_total{limit="handshake_rate"}') == 1


@pytest.mark.options("--max-connections-per-address", "1")
def test_behind_a_trusted_proxy_each_client_has_the_limit_and_nobody_else(server: Server, clients: ExitStack) -> None:
    subscribed(server, clients, X_Forwarded_For="192.0.2.1")
    subscribed(server, clients, X_Forwarded_For="192.0.2.2")
    subscribed(server, clients, X_Forwarded_For="2001:db8::1")
    for x_for in ("192.0.2.1", "6.6.6.6, 192.0.2.1", "192.0.2.1, 127.0.0.1", "2001:db8::2", '"[2001:db8::3]:80"'):
        client = clients.enter_context(server.connect())
        client.request("GET", "/channels/a?transport=eventsource", X_Forwarded_For=x_for)
        assert client.problem()[0] == 429
    assert re_address(server.wait_for_log("refused status=429")) == "192.0.2.1"
    for _ in range(3):
        subscribed(server, clients)
    client = clients.enter_context(server.connect())  # kept by the proxy, for one client after another
    for number in range(10, 14):
        client.request("GET", "/channels/a?wait=0&cursor=earliest", X_Forwarded_For=f"192.0.2.{number}")
        assert client.response()[0] == 200


@pytest.mark.options("--max-connections-per-address", "1")
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_proxy_is_not_promised_a_connection_that_is_being_closed(
    server: Server, clients: ExitStack, method: str
) -> None:
    """Its next request on it, of any client, would be lost."""
    for _ in range(2):
        client = clients.enter_context(server.connect())
        client.request("GET", "/channels/a?transport=eventsource", X_Forwarded_For="192.0.2.1")
        client.head()
    client = clients.enter_context(server.connect())
    client.request(method, "/channels/a?transport=eventsource", X_Forwarded_For="192.0.2.1")
    assert client.response()[1]["connection"] == "close"
    assert client.to_end() == b""


@pytest.mark.options("--max-connections-per-address", "1", "--trusted-proxies", "127.0.0.9")
def test_what_is_forwarded_by_others_is_not_believed(server: Server, clients: ExitStack) -> None:
    subscribed(server, clients, NOISY)
    client = clients.enter_context(server.connect(source=NOISY))
    client.request("GET", "/channels/a?transport=eventsource", X_Forwarded_For="192.0.2.1", Forwarded="for=192.0.2.1")
    assert client.problem()[0] == 429
    origin = {"Origin": "https://page.example", "X_Forwarded_Host": "page.example"}
    for source, status in ((QUIET, 403), ("127.0.0.9", 200)):
        client = clients.enter_context(server.connect(source=source))
        client.request("GET", "/channels/a?transport=eventsource", **origin)
        assert client.head()[0] == status


def landing(server: Server, source: str) -> bytes:
    with server.connect(source=source) as client:
        client.request("GET", "/", X_Forwarded_Proto="https")
        return client.response()[2]


@pytest.mark.options("--trusted-proxies", "127.0.0.9")
def test_the_landing_page_has_the_scheme_that_a_trusted_proxy_reports(server: Server) -> None:
    assert b"https://test" in landing(server, "127.0.0.9")
    assert b"https://test" not in landing(server, QUIET)


@pytest.mark.options("--publish-rate", "0.5")
def test_a_key_that_publishes_too_fast_gets_429_and_when_to_try_again(server: Server, client: Client) -> None:
    for number in range(6):
        client.publish("a", b"%d" % number)
        assert client.response()[0] == 200
    for _ in range(2):  # the first is compared with those before, and the second as well
        client.publish("a", b"6")
        status, headers, detail = client.problem()
        assert (status, headers["retry-after"], headers["connection"]) == (429, "2", "keep-alive")
        assert detail == "key root may not publish more messages now; retry after 2 s, or raise its rate"
    assert [message["data"] for message in client.retained("a")] == ["0", "1", "2", "3", "4", "5"]
    assert server.metric('pushcompat_limited_total{limit="publish_rate"}') == 2


@pytest.mark.options("--publish-rate", "0.5")
def test_a_batch_counts_as_its_messages(server: Server, client: Client) -> None:
    batch = json.dumps([{"channel": "a"}] * 7).encode()
    statuses = []
    for _ in range(2):
        client.request("POST", "/channels", batch, Authorization=f"Bearer {KEY}", Content_Type="application/json")
        statuses.append(client.response()[0])
    assert statuses == [200, 429]


def test_each_key_has_its_own_rate(tmp_path: Path) -> None:
    tables = "".join(
        f'[[key]]\nname = "{name}"\nchannels = ["*"]\nsha256 = "{sha256(name.encode()).hexdigest()}"\n{rate}\n'
        for name, rate in (("slow", "publish-rate = 0.1"), ("usual", ""), ("other", ""))
    )
    (tmp_path / "push.toml").write_text(f"publish-rate = 0.3\n{tables}")
    taken = {"slow": 0, "usual": 0, "other": 0, KEY: 0}
    for server in running(tmp_path / "state", "--config", str(tmp_path / "push.toml")):
        for name in taken:
            with server.connect() as one, server.connect() as two:
                for number in range(8):
                    client = (one, two)[number % 2]
                    client.publish("a", b"x", Authorization=f"Bearer {name}")
                    taken[name] += client.response()[0] == 200
    assert taken == {"slow": 2, "usual": 4, "other": 4, KEY: 4}


@pytest.mark.options("--channels-per-request", "2")
def test_a_connection_has_one_subscription_and_so_at_most_as_many_channels_as_a_request(
    server: Server, client: Client
) -> None:
    for names in ("a,b", "c,d", "e"):
        client.request("GET", f"/channels/{names}?wait=0&cursor=earliest")
        assert client.response()[0] == 200
        assert server.metric('pushcompat_subscriptions{transport="longpoll"}') == 1
    client.request("GET", "/channels/a,b,c?wait=0&cursor=earliest")
    assert client.problem()[0] == 400


@pytest.mark.options("--publish-rate", "2")
def test_the_publish_clients_wait_as_long_as_they_are_told_and_lose_nothing(server: Server, client: Client) -> None:
    for number in range(22):
        publish("a", str(number), url=server.url, key=KEY)
    published = asyncio.run(publish_async("a", "22", url=server.url, key=KEY))
    assert published.channels == {"a": 0}
    assert [message["data"] for message in client.retained("a")] == [str(number) for number in range(23)]
    assert server.metric('pushcompat_limited_total{limit="publish_rate"}') >= 1


@pytest.mark.options("--publish-rate", "0.001")
def test_a_publish_that_would_have_to_wait_too_long_fails_with_the_reason(server: Server) -> None:
    publish("a", url=server.url, key=KEY)
    with pytest.raises(PublishUnavailable, match=r"key root may not publish more messages now; retry after \d+ s"):
        publish("a", url=server.url, key=KEY)


@pytest.mark.options("--trusted-proxies", "none", "--max-connections-per-address", "1")
@pytest.mark.parametrize("transport", ["websocket", "eventsource", "longpoll"])
def test_a_listener_whose_address_has_too_many_connections_waits_and_then_gets_what_it_missed(
    server: Server, clients: ExitStack, transport: str
) -> None:
    holder = subscribed(server, clients, "127.0.0.1")
    command = [sys.executable, "-m", "pushcompat", "listen", "a", "--earliest", "--count", "1", "--url", server.url]
    command += ["--transport", transport, "--verbose", "--timeout", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listening:
        assert listening.stderr is not None
        noted = iter(listening.stderr.readline, "")
        assert any("this address has 1 connections" in line or "ended" in line for line in noted)
        assert any("reconnecting in" in line for line in noted)
        holder.close()
        with server.connect(source=QUIET) as publisher:
            publisher.publish("a", b"kept")
            assert publisher.response()[0] == 200
        out, _ = listening.communicate(timeout=30)
    assert [json.loads(line)["data"] for line in out.splitlines()] == ["kept"]


@pytest.mark.options("--max-connections", "2")
def test_a_full_server_answers_503_and_counts_it(server: Server, clients: ExitStack) -> None:
    subscribed(server, clients)
    client = clients.enter_context(server.connect())
    client.request("GET", "/channels/a?transport=eventsource")
    status, headers, _ = client.problem()
    assert (status, headers["retry-after"]) == (503, "5")
    assert server.metric('pushcompat_limited_total{limit="connections"}') == 1


def raw(server: Server, source: str) -> socket.socket:
    return socket.create_connection((server.host, server.port), PATIENCE_S, (source, 0))


@pytest.mark.options("--tls-cert", str(CERTIFICATE), "--trusted-proxies", "none", "--max-connections-per-address", "1")
def test_the_limits_are_the_same_with_tls_and_beyond_the_margin_nothing_is_encrypted(
    server: Server, clients: ExitStack
) -> None:
    for junk in [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""] * 10:  # handshakes that fail are not counted for ever
        with raw(server, NOISY) as sock:
            sock.sendall(junk)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    subscribed(server, clients, NOISY)
    client = clients.enter_context(server.connect(source=NOISY))
    client.request("GET", "/channels/a?transport=eventsource")
    assert client.problem()[0] == 429
    held = [clients.enter_context(raw(server, NOISY)) for _ in range(16)]
    with raw(server, NOISY) as sock:
        assert sock.recv(4096) == b""
    assert held
    subscribed(server, clients, QUIET)


@pytest.mark.options("--trusted-proxies", "127.0.0.9")
def test_what_a_trusted_proxy_has_published_for_a_page_admits_no_page_without_that_proxy(server: Server) -> None:
    page = {"Origin": "https://page.example", "X_Forwarded_Host": "page.example"}
    for source, status in (("127.0.0.9", 200), ("127.0.0.9", 200), (NOISY, 403), (NOISY, 403), ("127.0.0.9", 200)):
        with server.connect(source=source) as client:
            client.publish("a", b"x", **page)
            assert client.response()[0] == status
