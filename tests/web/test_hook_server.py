"""Webhooks in a server process, on real sockets: from the sender to a page, and what hostile senders cost."""

from __future__ import annotations

import hmac
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from ..harness import PATIENCE_S, Client, Server, running

SECRET = "It's a Secret to Everybody"
TOKEN = "this-token-must-not-be-logged_0123456789ABC"
HASH = sha256(TOKEN.encode()).hexdigest()
MIB = 1024 * 1024
CHUNKED = "Transfer-Encoding: chunked"
HOOKS = f"""
[[hook]]
name = "gh"
channels = ["orders"]
verify = "github"
secrets = ["{SECRET}"]
template = "order {{order.id}} is {{action}}"

[[hook]]
name = "fetched"
channels = ["fetched"]
verify = "token"
secrets = ["sha256:{HASH}"]
allow-get = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "push.toml"
    path.write_text(HOOKS)
    return path


@pytest.fixture
def server(tmp_path: Path, config: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    marker = request.node.get_closest_marker("options")
    yield from running(tmp_path / "state", "--config", str(config), *(marker.args if marker else ()))


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()


def head(body: bytes, *lines: str) -> bytes:
    """Of a webhook with a signature of the body; by default the length is that of the body."""
    fields = [f"X-Hub-Signature-256: {signature(body)}", *(lines or (f"Content-Length: {len(body)}",))]
    return "\r\n".join(["POST /hooks/gh HTTP/1.1", "Host: test", *fields, "", ""]).encode()


def deliver(client: Client, body: bytes, path: str = "/hooks/gh", **headers: str) -> int:
    client.request("POST", path, body, X_Hub_Signature_256=signature(body), **headers)
    return client.response()[0]


def deliver_alone(server: Server, body: bytes) -> int:
    with server.connect() as client:
        return deliver(client, body)


def test_a_webhook_of_github_arrives_at_a_page_and_a_replay_does_not(server: Server, client: Client) -> None:
    """X-GitHub-Delivery is not under the signature: whoever has captured a request can change it."""
    with server.connect() as page:
        page.request("GET", "/channels/orders", Accept="text/event-stream")
        page.head()
        page.event(), page.event()
        sent, moved = b'{"order": {"id": 7}, "action": "sent"}', b'{"order": {"id": 8}, "action": "paid"}'
        assert deliver(client, sent, X_GitHub_Delivery="1", Content_Type="application/json") == 200
        assert deliver(client, sent, X_GitHub_Delivery="2", Content_Type="application/json") == 200
        assert deliver(client, moved, X_GitHub_Delivery="1", Content_Type="application/json") == 200
        assert [page.event()["data"] for _ in range(2)] == ["order 7 is sent", "order 8 is paid"]
    assert server.metric('pushcompat_hook_requests_total{hook="gh"}') == 3
    assert server.metric("pushcompat_publishes_total") == 2


def test_a_replay_is_recognised_after_a_restart_too(tmp_path: Path, config: Path) -> None:
    for published in (1, 0):
        for server in running(tmp_path / "state", "--config", str(config)):
            with server.connect() as client:
                assert deliver(client, b"{}") == 200
                assert server.metric("pushcompat_publishes_total") == published
                assert len(client.retained("orders")) == 1


@pytest.mark.options("--idempotency-window", "0")
def test_a_replay_is_recognised_whatever_the_window_of_idempotency_keys_is(server: Server, client: Client) -> None:
    assert [deliver(client, b"{}") for _ in range(2)] == [200, 200]
    assert server.metric("pushcompat_publishes_total") == 1


@pytest.mark.options("--workers", "2")
def test_a_replay_is_recognised_by_the_other_worker(server: Server) -> None:
    for _ in range(20):  # connections are spread over the workers
        with server.connect() as client:
            assert deliver(client, b"{}") == 200
    server.wait_for_metric('pushcompat_hook_requests_total{hook="gh"}', 20, 20)
    assert server.metric("pushcompat_publishes_total") == 1


@pytest.mark.options("--prefix", "/push")
def test_hooks_are_below_the_prefix(server: Server, client: Client) -> None:
    assert deliver(client, b"{}", "/push/hooks/gh") == 200
    assert deliver(client, b"{}", "/push/hooks/other") == 404


@pytest.mark.options("--admin-listen", "127.0.0.1:0")
def test_hooks_are_on_the_public_address_also_if_publishing_is_not(client: Client) -> None:
    """They are called from elsewhere."""
    assert deliver(client, b"{}") == 200


def test_the_token_of_a_url_is_in_no_log_line_no_metric_and_no_answer(server: Server) -> None:
    path = f"/hooks/fetched/{TOKEN}"
    requests = [
        f"GET {path} HTTP/1.1\r\nHost: a\r\n",
        f"GET {path}?_=0.123 HTTP/1.1\r\nHost: a\r\n",
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx",
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n",
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n",
        f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        f"POST {path} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        f"POST {path}?validationToken=%FF HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n",
        f"POST {path}?validationToken= HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n",
        f"OPTIONS {path} HTTP/1.1\r\nHost: a\r\nWebHook-Request-Origin: <\r\n",
        f"PUT {path} HTTP/1.1\r\nHost: a\r\n",
        f"BREW {path} HTTP/1.1\r\nHost: a\r\n",
        f"GET {path} HTTP/3.0\r\nHost: a\r\n",
        f"GET {path} HTTP/1.1\r\n",
        f"GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        f"GET {path}/more HTTP/1.1\r\nHost: a\r\n",
        f"GET {path}%FF HTTP/1.1\r\nHost: a\r\n",
        f"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        f"GET {path} HTTP/1.1\r\nHost: a\r\nX: {'x' * 20_000}\r\n",
        f"GET http://a{path} HTTP/1.1\r\nHost: a\r\n",
        f"GET /hooks/other/{TOKEN} HTTP/1.1\r\nHost: a\r\n",
        f"GET /hooks/gh/{TOKEN} HTTP/1.1\r\nHost: a\r\n",
    ]
    for request in requests:
        with server.connect() as client:
            client.send(request.encode() + b"Connection: close\r\n\r\n")
            client.socket.shutdown(1)
            answer = client.to_end()
            assert TOKEN.encode() not in answer
            assert b" 500 " not in answer, request
    with server.connect() as client:
        client.request("GET", "/metrics")
        assert TOKEN.encode() not in client.response()[2]
    server.wait_for_log("hook_refused hook=gh")
    assert [line for line in server.log if TOKEN in line] == []


def test_a_connection_stays_open_for_the_next_webhook(client: Client) -> None:
    client.send((head(b"{}") + b"{}") * 2 + b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [client.response()[0] for _ in range(3)] == [200] * 3
    over = b"x" * (MIB + 1)
    client.send(head(over) + over)
    status, headers, _ = client.problem()
    assert (status, headers["connection"]) == (413, "close")
    assert client.to_end() == b""


@pytest.mark.parametrize(("size", "chunk"), [(2, 1), (70_000, 1000), (70_000, 16_384), (70_000, 70_000), (MIB, MIB)])
def test_a_chunked_body_is_verified_as_a_whole(client: Client, size: int, chunk: int) -> None:
    body = b"x" * size
    parts = [body[start : start + chunk] for start in range(0, size, chunk)]
    client.send(head(body, CHUNKED) + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""]))
    assert client.response()[0] == 200


def test_a_sender_that_asks_first_whether_to_send_the_body_is_answered(client: Client) -> None:
    client.send(head(b"{}", "Expect: 100-continue", "Content-Length: 2"))
    assert client.head()[0] == 100
    client.send(b"{}")
    assert client.response()[0] == 200
    client.send(head(b"{}", "Expect: 100-continue", "Content-Length: 2").replace(b"sha256=", b"sha1="))
    assert client.problem()[0] == 401
    assert client.to_end() == b""


def test_a_chunked_body_over_the_limit_is_413_before_its_end(client: Client) -> None:
    client.send(head(b"", CHUNKED) + b"%x\r\n%b\r\n" % (MIB + 1, b"x" * (MIB + 1)))
    status, headers, _ = client.problem()
    assert (status, headers["connection"]) == (413, "close")
    assert client.to_end() == b""


def test_what_has_no_signature_is_refused_before_its_body_is_received(client: Client) -> None:
    client.send(b"POST /hooks/gh HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    status, headers, _ = client.problem()
    assert (status, headers["connection"]) == (401, "close")
    assert client.to_end() == b""


@pytest.mark.options("--hook-budget", "4MiB", "--body-timeout", "60")
def test_bodies_that_are_never_finished_have_a_budget_together_and_hinder_nobody(server: Server) -> None:
    """They come from anyone: to know the secret is not needed for sending a body."""
    with server.connect() as client:
        assert deliver(client, b"{}") == 200
    before = server.memory()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(100)]
        for client in clients:
            client.send(head(b"", f"Content-Length: {MIB}") + b"x" * (MIB - 1))
        for client in clients[:90]:
            assert client.problem()[0] == 503
        assert server.memory() - before < 20 * MIB
        for number in range(10):
            assert deliver_alone(server, b"%02d" % number + b" " * (MIB - 2)) == 200
    server.wait_for_metric('pushcompat_hook_requests_total{hook="gh"}', 11, 11)


@pytest.mark.options("--hook-budget", "1MiB", "--body-timeout", "60")
def test_requests_without_a_body_count_in_the_budget_too(server: Server) -> None:
    """A thousand of them would need 20 MiB."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(200)]
        for client in clients:
            client.send(head(b"", "Content-Length: 9"))
        for client in clients[:140]:
            assert client.problem()[0] == 503
        assert deliver_alone(server, b"{}") == 200


@pytest.mark.options("--body-timeout", "1")
def test_a_body_that_never_ends_ends_with_its_time(client: Client) -> None:
    client.send(head(b"", "Content-Length: 9") + b"x")
    assert client.to_end() == b""


def test_hooks_are_read_again_with_the_configuration(server: Server, client: Client, config: Path) -> None:
    config.write_text(HOOKS.replace('"gh"', '"hub"').replace(SECRET, "another secret of sixteen"))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("reload detail=.*configuration now")
    assert deliver(client, b"{}") == 404
    with server.connect() as client:
        client.request("POST", "/hooks/hub", b"{}", X_Hub_Signature_256=signature(b"{}", "another secret of sixteen"))
        assert client.response()[0] == 200
    config.write_text("[[hook]]\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("without name.*the server continues unchanged")
    with server.connect() as client:
        client.request("POST", "/hooks/hub", b"{}", X_Hub_Signature_256=signature(b"{}", "another secret of sixteen"))
        assert client.response()[0] == 200
    server.log[:] = [line for line in server.log if "continues unchanged" not in line]  # the one that was caused here


def test_a_sender_that_can_only_fetch_publishes_the_signal(server: Server, client: Client) -> None:
    """What the pages of 2009 did: a GET with the time in its query."""
    for _ in range(2):
        client.request("GET", f"/hooks/fetched/{TOKEN}?{time.time()}")
        assert client.response()[0] == 200
    assert [message["data"] for message in client.retained("fetched")] == ["UPDATED"]
    assert server.metric("pushcompat_publishes_total") == 2


# docs/access.md

ACCESS = (Path(__file__).parents[2] / "docs" / "access.md").read_text()


def test_the_recipe_of_github_to_a_page_works_as_it_is_documented(tmp_path: Path) -> None:
    """The command, and the table with its template."""
    (words,) = re.findall(r"^    \$ pushcompat (hooks add .*)$", ACCESS, re.MULTILINE)
    (table,) = re.findall(r"^```toml\n(\[\[hook\]\]\n.*?)```$", ACCESS, re.MULTILINE | re.DOTALL)
    path = tmp_path / "push.toml"
    command = [sys.executable, "-m", "pushcompat", *words.replace("push.toml", str(path)).split()]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
    shown = ACCESS.partition(words)[2].partition("\n\n")[0].strip().splitlines()
    assert [line.split()[0] for line in printed.splitlines()] == [line.split()[0] for line in shown]
    assert shown[0].strip() == printed.splitlines()[0]  # the URL
    (secret,) = re.findall(r"^Secret: (\w+)$", printed, re.MULTILINE)
    assert tomllib.loads(path.read_text())["hook"][0] == {
        **{name: value for name, value in tomllib.loads(table)["hook"][0].items() if name != "template"},
        "secrets": [secret],
    }
    path.write_text(re.sub(r"(?m)^secrets = .*$", f'secrets = ["{secret}"]', table))
    for server in running(tmp_path / "state", "--config", str(path)):
        with server.connect() as page, server.connect() as client:
            page.request("GET", "/channels/orders", Accept="text/event-stream")
            page.head()
            page.event(), page.event()
            body = b'{"action": "opened", "order": {"id": 7}}'
            headers = {"X_Hub_Signature_256": signature(body, secret), "Content_Type": "application/json"}
            client.request("POST", "/hooks/orders", body, X_GitHub_Event="ping", **headers)
            assert client.response()[0] == 200
            client.request("POST", "/hooks/orders", body, X_GitHub_Event="issues", **headers)
            assert client.response()[0] == 200
            assert page.event()["data"] == "order 7 is opened"
