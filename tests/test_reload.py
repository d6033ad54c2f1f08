"""SIGHUP to a single process: it reads its configuration again, and loses no connection."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import jwt
import pytest

from .harness import KEY, PATIENCE_S, Client, Server, running

PAGE, OTHER = "https://page.example", "https://other.example"
EVERYTHING_IS_OPEN = '[[channel]]\npattern = "*"\nsubscribe = "open"\n'
DONE = r" INFO reload detail="


class Reloading:
    """A server and its configuration file."""

    def __init__(self, server: Server, file: Path) -> None:
        self.server = server
        self.file = file

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def reload(self, pattern: str = DONE) -> str:
        """The log line that says how it went."""
        self.server.log.clear()
        self.server.process.send_signal(signal.SIGHUP)
        return self.server.wait_for_log(pattern)


@pytest.fixture
def reloading(tmp_path: Path) -> Iterator[Reloading]:
    file = tmp_path / "push.toml"
    file.write_text(f'cors-origin = ["{PAGE}"]\n')
    for server in running(tmp_path / "state", "--config", str(file)):
        yield Reloading(server, file)


def stream(client: Client, origin: str) -> None:
    client.request("GET", "/channels/chat", Accept="text/event-stream", Origin=origin)
    assert client.head()[0] == 200
    client.event()


def status(server: Server, origin: str) -> int:
    with server.connect() as client:
        client.request("GET", "/channels/chat?wait=0", Origin=origin)
        return client.response()[0]


def test_a_page_whose_origin_is_still_allowed_keeps_its_stream(reloading: Reloading) -> None:
    with reloading.server.connect() as client:
        stream(client, PAGE)
        reloading.write(f'cors-origin = ["{OTHER}", "{PAGE}"]\n')
        reloading.reload()
        assert status(reloading.server, OTHER) == 200
        reloading.server.publish("chat", "after")
        while client.event().get("data") != "after":
            pass


def test_the_stream_of_a_page_whose_origin_is_no_longer_allowed_ends(reloading: Reloading) -> None:
    with reloading.server.connect() as client, reloading.server.connect() as own:
        stream(client, PAGE)
        own.request("GET", "/channels/chat", Accept="text/event-stream")
        own.head()
        own.event()
        reloading.write("")
        reloading.reload()
        client.to_end()
        assert status(reloading.server, PAGE) == 403
        reloading.server.publish("chat", "after")
        while own.event().get("data") != "after":
            pass


def test_a_poll_that_was_admitted_before_is_checked_again(reloading: Reloading) -> None:
    with reloading.server.connect() as client:
        cursor = client.poll("chat")["cursor"]
        poll = f"/channels/chat?cursor={cursor}&wait=0"
        for _ in range(3):  # the second one is compared with the first
            client.request("GET", poll, Origin=PAGE)
            assert client.response()[0] == 200
        reloading.write(f'cors-origin = ["{OTHER}"]\n')
        reloading.reload()
        client.request("GET", poll, Origin=PAGE)
        assert client.problem()[0] == 403


def test_a_held_poll_of_a_page_that_is_no_longer_allowed_is_answered(reloading: Reloading) -> None:
    with reloading.server.connect() as client:
        client.request("GET", "/channels/chat?wait=20", Origin=PAGE)
        reloading.server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
        reloading.write("")
        reloading.reload()
        assert client.response()[0] == 200


def test_a_broken_configuration_changes_nothing_and_is_explained(reloading: Reloading) -> None:
    for text, why in [
        ("cors-origin = [", "is not valid TOML"),
        ("zzz = 1", "unknown option 'zzz'"),
        ('cors-origin = ["x"]', "an origin is scheme://host"),
        ('heartbeat = "x"', "is not a valid duration"),
    ]:
        reloading.write(text)
        told = reloading.reload(r" ERROR reload detail=")
        assert why in told
        assert "continues unchanged" in told
        assert status(reloading.server, PAGE) == 200
    reloading.server.log.clear()  # the errors were meant


def test_an_option_that_cannot_change_is_named(reloading: Reloading) -> None:
    reloading.write(f'cors-origin = ["{OTHER}"]\nheartbeat = 7\n')
    assert "--heartbeat takes effect when the server is restarted" in reloading.reload(r" WARNING reload detail=")
    assert status(reloading.server, OTHER) == 200


def test_the_publish_key_is_replaced_also_for_a_publisher_that_stays_connected(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    for server in running(tmp_path / "state", "--publish-key-file", str(file)):
        with server.connect() as administrator, server.connect() as client:
            head = f"POST /revoke HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 13\r\n\r\n"
            administrator.send(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n" + head.encode() + b'{"sub":')
            assert administrator.response()[0] == 200, "and what is behind it is being read"
            for _ in range(3):
                client.publish("chat", b"x")
                assert client.response()[0] == 200
            file.write_text("another-key")
            Reloading(server, file).reload()
            client.publish("chat", b"x")
            assert client.problem()[0] == 401
            administrator.send(b'"ann"}')
            assert administrator.problem()[0] == 401
        with server.connect() as client:
            client.publish("chat", b"x", Authorization="Bearer another-key")
            assert client.response()[0] == 200


def test_streams_follow_the_rules_and_the_keys_of_their_tokens(tmp_path: Path) -> None:
    """Those that would be admitted again continue, the others are told ``expired``; nothing else ends."""
    file, secrets = tmp_path / "push.toml", tmp_path / "secrets"
    file.write_text('[[channel]]\npattern = "orders.*"\nsubscribe = "token"\n' + EVERYTHING_IS_OPEN)
    old, new = "an old secret of at least thirty-two bytes", "a new secret of at least thirty-two bytes"
    secrets.write_text(f"{old}\n{new}\n")
    options = ("--config", str(file), "--token-key-file", str(secrets))
    for server in running(tmp_path / "state", *options):
        with ExitStack() as stack:
            streams = {}
            for name, channel, secret in [("old", "orders.1", old), ("new", "orders.1", new), ("open", "news", "")]:
                streams[name] = stack.enter_context(server.connect())
                signed = jwt.encode({"exp": time.time() + 60, "channels": ["orders.*"]}, secret) if secret else ""
                query = f"?token={signed}" if signed else ""
                streams[name].request("GET", f"/channels/{channel}{query}", Accept="text/event-stream")
                assert streams[name].head()[0] == 200
                streams[name].event()
            reloading = Reloading(server, file)
            secrets.write_text(f"{new}\n")
            reloading.reload()
            assert b'"control":"expired"' in streams.pop("old").to_end()
            server.publish("orders.1,news", "one")
            for stream in streams.values():
                while stream.event().get("data") != "one":
                    pass
            file.write_text('[[channel]]\npattern = "orders.*"\nsubscribe = "nobody"\n' + EVERYTHING_IS_OPEN)
            reloading.reload()
            assert b'"control":"expired"' in streams.pop("new").to_end()
            server.publish("news", "two")
            while streams["open"].event().get("data") != "two":
                pass


def test_a_named_key_and_a_hook_come_and_go_with_the_file(tmp_path: Path) -> None:
    file, secret, shop = tmp_path / "push.toml", tmp_path / "secret", "pc_shop0001_" + "s" * 43
    secret.write_text("a-secret-of-at-least-thirty-two-characters")
    key = f'[[key]]\nname = "shop"\nsha256 = "{sha256(shop.encode()).hexdigest()}"\nchannels = ["orders.*"]\n'
    hook = f'[[hook]]\nname = "news"\nchannels = ["news"]\nverify = "token"\nsecrets-file = "{secret}"\n'
    file.write_text("")
    for server in running(tmp_path / "state", "--config", str(file)):
        for text, published, hooked in [("", 401, 404), (key + hook, 200, 200), ("", 401, 404)]:
            file.write_text(text)
            Reloading(server, file).reload()
            with server.connect() as client:
                client.publish("orders.1", b"x", Authorization=f"Bearer {shop}")
                assert client.response()[0] == published
            with server.connect() as client:
                client.request("POST", f"/hooks/news/{secret.read_text()}", b"x")
                assert client.response()[0] == hooked


def test_many_signals_at_once_end_with_the_last_configuration(reloading: Reloading) -> None:
    for number in range(20):
        reloading.write(f'cors-origin = ["https://page-{number}.example"]\n')
        reloading.server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE_S
    while status(reloading.server, "https://page-19.example") != 200:
        assert time.monotonic() < deadline
    assert status(reloading.server, "https://page-18.example") == 403


def test_a_signal_that_comes_when_the_server_stops_is_ignored(reloading: Reloading) -> None:
    process, log = reloading.server.process, reloading.server.log
    process.send_signal(signal.SIGTERM)
    reloading.server.wait_for_log(" INFO stopping ")
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE_S) == 0
    assert not [line for line in log if " reload " in line]
