"""Revoking at real servers: on all workers and nodes, on every store that is shared, and across restarts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..access.tokens import SECRET, token
from ..harness import KEY, PATIENCE_S, Client, Server
from ..store import engines
from ..workers import Workers

OPTIONS = ("--subscribe", "token")
ENVIRONMENT = {"PUSHCOMPAT_TOKEN_KEY": SECRET}
Start = Callable[[str], Server]


def made(sub: str, **claims: object) -> str:
    """Valid for as long as all tests may take."""
    return token(sub=sub, channels=["*"], exp=int(time.time()) + 3600, **claims).decode()


ANN, BOB = made("ann", jti="1"), made("bob", jti="2")


def start(state_dir: Path, *options: str, kind: type[Server] = Server) -> Server:
    return kind(state_dir, *OPTIONS, *options, env=ENVIRONMENT)


def revoke(server: Server, **target: object) -> None:
    with server.connect() as client:
        client.request("POST", "/revoke", json.dumps(target).encode(), Authorization=f"Bearer {KEY}")
        assert client.response()[0] == 204


def stream(server: Server, token: str, channel: str = "a") -> Client:
    client = server.connect()
    client.request("GET", f"/channels/{channel}?token={token}", Accept="text/event-stream")
    assert client.head()[0] == 200
    client.event()
    return client


def ends(client: Client) -> None:
    """Reads ``expired``, and then the end."""
    while '"expired"' not in client.event().get("data", ""):
        pass
    assert client.to_end() == b""


def next_data(client: Client) -> str:
    while "control" in (event := client.event()).get("event", ""):
        assert '"expired"' not in event["data"]
    return event["data"]


def status_of(server: Server, token: str, channel: str = "a") -> int:
    with server.connect() as client:
        client.request("GET", f"/channels/{channel}?wait=0&token={token}")
        return client.response()[0]


@pytest.fixture(params=["sqlite", "redis"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts servers that share one log."""
    with ExitStack() as stack:
        url = f"sqlite:{tmp_path}/log.sqlite"
        if request.param == "redis":
            url = stack.enter_context(engines.running(tmp_path / "redis", "redis", "--appendonly", "yes")).url()
        servers: list[Server] = []

        def begin(name: str) -> Server:
            servers.append(start(tmp_path / name, "--store", url))
            return servers[-1]

        yield begin
        for server in servers:
            if server.process.poll() is None:
                server.stop()


def test_revoking_on_one_node_ends_streams_and_refuses_tokens_on_all(nodes: Start) -> None:
    one, other = nodes("one"), nodes("other")
    with stream(other, ANN) as ann, stream(other, BOB) as bob, stream(one, ANN) as here:
        revoke(one, sub="ann")
        ends(here)
        ends(ann)
        assert status_of(one, ANN) == status_of(other, ANN) == 401
        assert status_of(one, BOB) == status_of(other, BOB) == 200
        one.publish("a", "still")
        assert next_data(bob) == "still"


def test_a_node_that_starts_later_knows_the_revocation_before_its_first_request(nodes: Start) -> None:
    revoke(nodes("one"), jti="1")
    late = nodes("late")
    assert status_of(late, ANN) == 401
    assert status_of(late, BOB) == 200


def test_a_revocation_outlives_kill_9_and_the_history_of_its_time(tmp_path: Path) -> None:
    server = start(tmp_path, "--history", "1", "--history-bytes", "60KiB")
    revoke(server, sub="ann")
    for number in range(300):
        server.publish(f"c{number % 3}", b"x" * 1000)
    server.stop(signal.SIGKILL)
    server = start(tmp_path, "--history", "1", "--history-bytes", "60KiB")
    try:
        assert status_of(server, ANN) == 401
        assert status_of(server, BOB) == 200
    finally:
        server.stop()


def test_revocations_hold_when_the_log_starts_another_epoch(tmp_path: Path) -> None:
    server = start(tmp_path)
    revoke(server, sub="ann")
    before = server.publish("a", "x")["id"]
    server.stop()
    (tmp_path / "log.sqlite.mark").unlink()  # as a copied disk has none
    server = start(tmp_path)
    try:
        assert server.publish("a", "y")["id"][:8] != before[:8]
        assert status_of(server, ANN) == 401
        assert status_of(server, BOB) == 200
    finally:
        server.stop()


def test_revoking_ends_what_is_open_on_all_workers(tmp_path: Path) -> None:
    server = start(tmp_path, kind=Workers)
    try:
        with ExitStack() as stack:
            # Many, so that each worker has some
            anns = [stack.enter_context(stream(server, ANN)) for _ in range(16)]
            bobs = [stack.enter_context(stream(server, BOB)) for _ in range(16)]
            revoke(server, sub="ann")
            for ann in anns:
                ends(ann)
            server.publish("a", "still")
            for bob in bobs:
                assert next_data(bob) == "still"
        assert [status_of(server, ANN) for _ in range(16)] == [401] * 16
    finally:
        server.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    server = start(tmp_path)
    yield server
    server.stop()


def test_a_websocket_is_closed_with_4401(guarded: Server) -> None:
    with guarded.connect() as client:
        assert client.upgrade(f"/channels/a?token={ANN}&format=json") == 101
        client.frame()
        revoke(guarded, channel="a")
        kind, data = client.frame()
        assert (kind, b'"expired"' in data) == (0x81, True)
        kind, data = client.frame()
        assert (kind, int.from_bytes(data[:2], "big")) == (0x88, 4401)


def test_a_token_that_was_issued_after_the_revocation_is_admitted(guarded: Server) -> None:
    now = int(time.time())
    revoke(guarded, sub="ann")
    assert status_of(guarded, made("ann", iat=now - 5)) == 401
    assert status_of(guarded, made("ann", iat=now + 5)) == 200


def test_a_revoked_token_is_not_admitted_to_open_channels_either(tmp_path: Path) -> None:
    server = Server(tmp_path, "--subscribe", "open", env=ENVIRONMENT)
    try:
        revoke(server, sub="ann")
        assert status_of(server, ANN) == 401
        assert status_of(server, BOB) == 200
    finally:
        server.stop()


def command(server: Server, *arguments: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pushcompat", "revoke", "--url", server.url, *arguments],
        env={"PUSHCOMPAT_PUBLISH_KEY": key, "PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_command_revokes(guarded: Server) -> None:
    done = command(guarded, "--sub", "ann", "--channel", "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert status_of(guarded, ANN, "a") == 401
    assert status_of(guarded, ANN, "b") == 200
    guarded.wait_for_log(r" revoked sub=ann channel=a expires_s=")


@pytest.mark.parametrize(
    ("arguments", "key", "code", "said"),
    [
        ((), KEY, 2, "name whom to revoke"),
        (("--channel", "a b"), KEY, 1, "invalid channel name"),
        (("--sub", "ann"), "wrong-key", 1, "invalid publish key"),
        (("--sub", "ann", "--expires", "0"), KEY, 2, "too small"),
    ],
)
def test_the_command_says_what_to_change(
    guarded: Server, arguments: tuple[str, ...], key: str, code: int, said: str
) -> None:
    done = command(guarded, *arguments, key=key)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def refusal(server: Server, method: str, target: str, body: bytes = b"", **headers: str) -> int:
    with server.connect() as client:
        client.request(method, target, body, **headers)
        return client.problem()[0]


def test_the_access_log_is_no_channel_of_anybody(guarded: Server) -> None:
    revoke(guarded, sub="ann")
    root = {"Authorization": f"Bearer {KEY}"}
    with guarded.connect() as client:
        client.request("GET", "/channels", **root)
        status, _, body = client.response()
        assert (status, json.loads(body)) == (200, {"channels": [], "next": None})
    for name in ("!access", "%21access", "a,!access"):
        assert refusal(guarded, "GET", f"/channels/{name}?token={BOB}&cursor=earliest") == 400
        assert refusal(guarded, "POST", f"/channels/{name}", b"x", **root) == 400
    batch = b'[{"channel":"!access","data":{"sub":"bob"},"key":"revoke:1"}]'
    assert refusal(guarded, "POST", "/channels", batch, Content_Type="application/json", **root) == 400
    assert guarded.metric("pushcompat_retained_messages") == guarded.metric("pushcompat_retained_bytes") == 0
    assert guarded.metric("pushcompat_channels") == 0
    assert status_of(guarded, BOB) == 200
