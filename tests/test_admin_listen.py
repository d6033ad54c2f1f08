"""--admin-listen: publishing, metrics and administration have an address of their own, and no other one takes them."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushcompat import publish

from .harness import KEY, PATIENCE_S, Client, Server, running
from .workers import Workers

BEARER = f"Bearer {KEY}"
ANY_PORT = ("--admin-listen", "127.0.0.1:0")


class Apart(Server):
    """Its administration is at ``admin``."""

    @property
    def admin(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        if not hasattr(self, "_admin"):
            line = self.process.stdout.readline().decode()
            found = re.search(r"Publishing, metrics and administration are on http://(.*?):(\d+)", line)
            assert found is not None, line
            self._admin = found[1], int(found[2])
        return self._admin

    def connect_admin(self) -> Client:
        return Client(*self.admin)

    def publish_there(self, channel: str, text: str) -> None:
        publish(channel, text, url="http://{}:{}".format(*self.admin), key=KEY)


class ApartWorkers(Apart, Workers):
    pass


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), *ANY_PORT, kind=Apart)


REFUSED = [
    ("POST", "/channels/chat"), ("POST", "/channels"), ("GET", "/channels"), ("HEAD", "/channels"), ("GET", "/metrics"),
    ("HEAD", "/metrics"), ("POST", "/revoke"), ("GET", "/revoke"), ("POST", "/metrics"), ("GET", "/keys"),
    ("POST", "/keys"), ("DELETE", "/keys/shop"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_the_public_address_refuses_publishing_metrics_and_administration_with_a_sentence(
    apart: Apart, method: str, path: str
) -> None:
    with apart.connect() as client:
        client.request(method, path, b"{}" if method == "POST" else b"", Authorization=BEARER)
        status, fields = client.head()
        assert status == 403
        if method != "HEAD":
            detail = json.loads(client.exactly(int(fields["content-length"])))["detail"]
            assert "on the server's admin address (--admin-listen)" in detail


def test_the_admin_address_takes_all_of_it(apart: Apart) -> None:
    with apart.connect_admin() as client:
        for method, path, body, expected in [
            ("POST", "/channels/chat", b"x", 200),
            ("GET", "/channels", b"", 200),
            ("GET", "/metrics", b"", 200),
            ("POST", "/revoke", b'{"sub": "ann"}', 204),
            ("GET", "/keys", b"", 200),
            ("GET", "/healthz", b"", 200),
            ("GET", "/channels/chat?wait=0", b"", 200),
        ]:
            client.request(method, path, body, Authorization=BEARER)
            assert client.response()[0] == expected, path


def test_a_publish_that_was_learnt_on_the_admin_address_is_refused_on_the_public_one(apart: Apart) -> None:
    """Both have the same header fields: what is remembered of one must not admit the other."""
    with apart.connect_admin() as admin:
        for _ in range(3):
            admin.publish("chat", b"x")
            assert admin.response()[0] == 200
    for _ in range(3):
        with apart.connect() as client:
            client.publish("chat", b"x")
            assert client.problem()[0] == 403


def test_a_connection_keeps_its_address_when_it_comes_back_from_a_page(apart: Apart) -> None:
    for connect, expected in [(apart.connect, 403), (apart.connect_admin, 200)]:
        with connect() as client:
            for _ in range(2):
                client.request("GET", "/healthz")
                assert client.response()[0] == 200
            client.publish("chat", b"x")
            assert client.response()[0] == expected


def test_incoming_webhooks_stay_public(tmp_path: Path) -> None:
    file, secret = tmp_path / "push.toml", tmp_path / "secret"
    secret.write_text("a-secret-of-at-least-thirty-two-characters")
    file.write_text(f'[[hook]]\nname = "shop"\nchannels = ["news"]\nverify = "token"\nsecrets-file = "{secret}"\n')
    for server in running(tmp_path / "state", *ANY_PORT, "--config", str(file), kind=Apart):
        with server.connect() as client:
            client.request("POST", f"/hooks/shop/{secret.read_text()}", b"x")
            assert client.response()[0] < 300
            client.request("POST", "/hooks/shop/wrong", b"x")
            assert client.response()[0] in (401, 404)


def test_a_key_is_not_tried_on_the_public_address(apart: Apart) -> None:
    """A wrong key and the right one have the same answer: nobody can guess there."""
    answers = set()
    for key in (BEARER, "Bearer wrong"):
        with apart.connect() as client:
            client.publish("chat", b"x", Authorization=key)
            answers.add(client.problem()[::2])
    assert len(answers) == 1


def test_subscribers_on_the_public_address_get_what_is_published_on_the_other(apart: Apart) -> None:
    with apart.connect() as client:
        client.request("GET", "/channels/news", Accept="text/event-stream")
        client.head()
        client.event()
        apart.publish_there("news", "hello")
        while client.event().get("data") != "hello":
            pass


def test_the_landing_page_of_the_public_address_does_not_lead_there(apart: Apart) -> None:
    for connect, shown in [(apart.connect, False), (apart.connect_admin, True)]:
        with connect() as client:
            client.request("GET", "/")
            assert (b"/metrics" in client.response()[2]) is shown


def test_the_demo_publishes_to_the_admin_address(tmp_path: Path) -> None:
    for server in running(tmp_path / "state", *ANY_PORT, "--demo", kind=Apart):
        with server.connect() as page, server.connect() as follower:
            follower.request("GET", "/channels/chat", Accept="text/event-stream")
            follower.head()
            follower.event()
            page.request("POST", "/demo/chat", b"name=a&text=b", Content_Type="application/x-www-form-urlencoded")
            assert page.response()[0] == 303
            while "data" not in (event := follower.event()) or "control" in event.get("event", ""):
                pass


@pytest.mark.parametrize("kind", [Apart, ApartWorkers])
def test_a_unix_socket_for_administration_has_the_mode_that_was_asked_for_and_goes_with_the_server(
    tmp_path: Path, kind: type[Server]
) -> None:
    path = tmp_path / "admin.sock"
    options = ("--admin-listen", f"unix:{path}", "--unix-socket-mode", "660")
    for server in running(tmp_path / "state", *options, kind=kind):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        url = f"http+unix://{urllib.parse.quote(str(path), safe='')}"
        assert publish("chat", "x", url=url, key=KEY).channels == {"chat": 0}
        done = subprocess.run(
            [sys.executable, "-m", "pushcompat", "publish", "--url", url, "chat", "x"],
            env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": KEY}, capture_output=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        with server.connect() as client:
            client.publish("chat", b"x")
            assert client.problem()[0] == 403
    assert not path.exists()


def test_all_workers_share_the_admin_address_also_after_a_roll(tmp_path: Path) -> None:
    for server in running(tmp_path / "state", *ANY_PORT, kind=ApartWorkers):
        assert isinstance(server, ApartWorkers)
        for _ in range(2):
            for connect, expected in [(server.connect, 403), (server.connect_admin, 200)] * 8:
                with connect() as client:
                    client.publish("chat", b"x")
                    assert client.response()[0] == expected
            server.roll()


def test_with_a_socket_of_systemd_the_server_binds_the_admin_address_itself(tmp_path: Path) -> None:
    from .test_systemd import activated

    with socket.create_server(("127.0.0.1", 0)) as listener, activated(tmp_path, listener, *ANY_PORT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = re.search(rb"http://(.*?):(\d+)", process.stdout.readline())
        assert found is not None
        for address, expected in [(listener.getsockname(), 403), ((found[1].decode(), int(found[2])), 200)]:
            with Client(*address) as client:
                client.publish("chat", b"x")
                assert client.response()[0] == expected
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def refused(tmp_path: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pushcompat", "--port", "0", "--state-dir", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("--admin-listen", "9000"), "use HOST:PORT, [IPv6]:PORT or unix:PATH"),
        (("--admin-listen", ":9000"), "is not an address"),
        (("--admin-listen", "127.0.0.1:99999"), "is not an address"),
        (("--admin-listen", "::1:9000"), "is not an address"),
        (("--admin-listen", "unix:"), "is not an address"),
        (("--admin-listen", "unix:/nowhere/x"), "--admin-listen /nowhere/x: directory /nowhere does not exist"),
        (("--admin-listen", "192.0.2.1:1"), "cannot listen on --admin-listen 192.0.2.1:1"),
        (("--unix-socket-mode", "rw"), "'rw' is not a valid mode"),
        (("--unix-socket-mode", "432"), "'432' is not a valid mode"),
        (("--unix-socket-mode", "1777"), "'1777' is not a valid mode"),
    ],
)
def test_what_is_no_address_or_mode_is_refused_in_one_line(
    tmp_path: Path, options: tuple[str, ...], advice: str
) -> None:
    assert advice in refused(tmp_path, *options)


def test_an_ipv6_address_is_one(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    for server in running(tmp_path / "state", "--admin-listen", "[::1]:0"):
        assert server.process.stdout is not None
        assert "administration are on http://[::1]:" in server.process.stdout.readline().decode()
