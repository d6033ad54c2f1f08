"""Subscribers with tokens at a real server: admitted, refused, expired, and what a flood of wrong ones does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..access.tokens import PRIVATE, SECRET, public_pem, token
from ..harness import PATIENCE_S, Server, running

WEBSOCKET = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    rules = tmp_path_factory.mktemp("config") / "rules.toml"
    rules.write_text(
        'subscribe = "token"\ntoken-cookie = "session"\ntoken-leeway = "0s"\n'
        '[[channel]]\npattern = "public.*"\nsubscribe = "open"\n'
        '[[channel]]\npattern = "user:{sub}:*"\n'
        '[[channel]]\npattern = "internal.*"\nsubscribe = "nobody"\n'
    )
    yield from running(
        tmp_path_factory.mktemp("state"), "--config", str(rules), env={"PUSHCOMPAT_TOKEN_KEY": SECRET}
    )  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    marker = request.node.get_closest_marker("options")
    yield from running(tmp_path / "state", *marker.args, env=getattr(request, "param", None))


def good(**claims: object) -> str:
    return token(channels=["a", "b.*"], sub="ann", **claims).decode()


# The whole way, on every transport


@pytest.mark.parametrize("place", ["parameter", "header", "cookie"])
@pytest.mark.parametrize("transport", ["websocket", "eventsource", "longpoll"])
def test_a_subscriber_with_a_token_gets_messages(shared_server: Server, transport: str, place: str) -> None:
    with shared_server.connect() as client:
        text = good()
        fields = {"header": {"Authorization": f"Bearer {text}"}, "cookie": {"Cookie": f"x=y; session={text}"}}
        target = f"/channels/a,b.1?transport={transport}&format=json"
        target += f"&token={text}" if place == "parameter" else ""
        if transport == "websocket":
            assert client.upgrade(target, **fields.get(place, {})) == 101
            client.frame()
            shared_server.publish("b.1", "hello")
            assert json.loads(client.frame()[1])["data"] == "hello"
            return
        cursor = shared_server.publish("a", "before")["id"]
        client.request("GET", f"{target}&cursor={cursor}", **fields.get(place, {}))
        if transport == "eventsource":
            assert client.head()[0] == 200
            assert json.loads(client.event()["data"])["control"] == "open"
            shared_server.publish("b.1", "hello")
            while "hello" not in client.event().get("data", ""):
                pass
            return
        shared_server.publish("b.1", "hello")
        assert [m["data"] for m in json.loads(client.response()[2])["messages"]] == ["hello"]


@pytest.mark.parametrize(
    ("names", "claims", "status", "detail"),
    [
        ("a", None, 401, "channel a needs a token: send it in Authorization (Bearer) or as ?token="),
        ("a", {"exp": int(time.time()) - 60}, 401, "the token has expired; request a new one"),
        ("public.x", {"exp": int(time.time()) - 60}, 401, "the token has expired; request a new one"),
        ("a", {"aud": "x"}, 401, "the token is for another audience: aud is in the token, set --token-audience"),
        ("c", {}, 403, "the token does not allow channel c"),
        ("user:bob:x", {"channels": ["user:bob:x"]}, 403, "the token does not allow channel user:bob:x"),
        ("internal.x", {"channels": ["*"]}, 403, "nobody may subscribe to channel internal.x"),
    ],
)  # fmt: skip
def test_a_refusal_says_why_on_http_and_in_the_close_frame(
    shared_server: Server, names: str, claims: dict[str, object] | None, status: int, detail: str
) -> None:
    query = "" if claims is None else "&token=" + token(**{"channels": ["a"], "sub": "ann", **claims}).decode()
    for transport in ("longpoll", "eventsource"):
        with shared_server.connect() as client:
            client.request("GET", f"/channels/{names}?transport={transport}{query}")
            answer, headers, found = client.problem()
            assert (answer, found) == (status, detail)
            assert headers.get("www-authenticate", "").startswith("Bearer") is (status == 401)
    with shared_server.connect() as client:
        assert client.upgrade(f"/channels/{names}?x=y{query}") == 101
        first, payload = client.frame()
        assert (first, payload) == (0x88, (4000 + status).to_bytes(2, "big") + detail.encode())


def test_a_head_is_admitted_as_a_get_is(shared_server: Server) -> None:
    with shared_server.connect() as client:
        client.request("HEAD", f"/channels/a?token={good()}")
        assert client.head()[0] == 200
        client.request("HEAD", "/channels/a")
        assert client.head()[0] == 401


def test_at_its_exp_a_websocket_is_told_and_closed_and_the_token_is_refused(shared_server: Server) -> None:
    with shared_server.connect() as client:
        target = f"/channels/a?format=json&token={good(exp=int(time.time()) + 3)}"
        assert client.upgrade(target) == 101
        assert json.loads(client.frame()[1])["control"] == "open"
        while json.loads((frame := client.frame())[1] or b'{"control":""}').get("control") != "expired":
            pass
        assert set(json.loads(frame[1])) == {"control", "cursor"}
        assert client.frame() == (0x88, b"\x11\x31expired")  # 4401
        with shared_server.connect() as again:
            assert again.upgrade(target) == 101
            assert again.frame() == (0x88, b"\x11\x31the token has expired; request a new one")


def test_at_its_exp_an_event_stream_says_so_and_ends(shared_server: Server) -> None:
    with shared_server.connect() as client:
        client.request("GET", f"/channels/a?transport=eventsource&token={good(exp=int(time.time()) + 3)}")
        assert client.head()[0] == 200
        while json.loads((event := client.event()).get("data", "{}")).get("control") != "expired":
            pass
        assert (event["event"], event["id"]) == ("control", json.loads(event["data"])["cursor"])
        assert client.to_end() == b""
        assert client.chunks is not None
        assert client.chunks.ended


def test_at_its_exp_a_held_poll_is_answered_and_the_next_is_refused(shared_server: Server) -> None:
    with shared_server.connect() as client:
        text, cursor = good(exp=int(time.time()) + 3), shared_server.publish("a")["id"]
        for expected in (200, 401):
            client.request("GET", f"/channels/a?cursor={cursor}&token={text}")
            status, _, body = client.response()
            assert status == expected, body
            if status == 200:
                assert json.loads(body) == {"cursor": json.loads(body)["cursor"], "messages": []}


def test_a_token_is_verified_once_for_a_handshake_and_the_polls_after_it(shared_server: Server) -> None:
    before = shared_server.metric("pushcompat_verifications_total")
    with shared_server.connect() as client:
        text, cursor = good(), shared_server.publish("a")["id"]
        for _ in range(10):
            client.request("GET", f"/channels/a?cursor={cursor}&wait=0&token={text}")
            assert client.response()[0] == 200
        with shared_server.connect() as another:
            assert another.upgrade(f"/channels/a?token={text}") == 101
    assert shared_server.metric("pushcompat_verifications_total") == before + 1


# Secrets


@pytest.mark.options(
    "--subscribe", "token", "--token-cookie", "session", "--log-level", "debug", "--workers", "2"
)  # fmt: skip
@pytest.mark.parametrize("server", [{"PUSHCOMPAT_TOKEN_KEY": SECRET}], indirect=True)
def test_a_token_is_in_no_log_line_no_metric_and_no_answer(server: Server) -> None:
    marks = [token(jti=f"marker{number}", sub="ann", channels=["a"]).decode() for number in range(3)]
    wrong = [f"{text[:-20]}{'A' * 20}" for text in marks] + ["m-a-r-k-e-r", "marker%0d%0amarker", "marker%00"]
    said = b""
    for text in [*marks, *wrong]:
        for target in (f"/channels/a?token={text}", f"/channels/a%20b?token={text}", f"/nowhere?token={text}",
                       f"/channels/a?format=x&token={text}", f"/channels/b?cursor={text}&token={text}"):  # fmt: skip
            for fields in ({}, {"Authorization": f"Bearer {text}"}, {"Cookie": f"session={text}"}):
                for upgrade in ({}, {**WEBSOCKET, "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}):
                    with server.connect() as client:
                        client.request("GET", f"{target}&wait=0", **fields, **upgrade)
                        client.until(b" ")
                        client.socket.shutdown(socket.SHUT_WR)
                        said += client.to_end()
    with server.connect() as client:
        client.request("GET", "/metrics")
        said += client.response()[2]
    assert server.stop() == 0
    written = said.decode("latin-1") + "\n".join(server.log)
    for text in [*marks, *wrong]:
        assert text not in written
        assert text.rpartition(".")[2] not in written
    assert "marker" not in written


# A flood


FLOOD = """
import socket, sys
port, wrong, addresses = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
request = f"GET /channels/a?token={wrong} HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n".encode()
crowd = []
for number in range(1200):
    sock = socket.socket()
    sock.bind((addresses[number % len(addresses)], 0))
    sock.connect(("127.0.0.1", port))
    sock.sendall(request)
    crowd.append(sock)
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_a_flood_of_wrong_es512_tokens_delays_itself_and_nobody_else(tmp_path: Path) -> None:
    """In the time of the queue's 5 s, 100 ms are spent on verifying: 200 of the 1,200 at most."""
    keys = tmp_path / "key.pem"
    keys.write_text(public_pem("ES512"))
    options = ("--token-key-file", str(keys), "--verify-share", "0.02", "--trusted-proxies", "none")
    valid = es512(channels=["a"])
    wrong = es512(channels=["a"])[:-10] + "AAAAAAAAAA"
    for server in running(tmp_path / "state", *options):
        with server.connect() as follower, server.connect() as newcomer:
            assert follower.upgrade(f"/channels/a?token={valid}") == 101
            addresses = ",".join(f"127.0.0.{number}" for number in range(2, 6))
            flood = subprocess.Popen(
                [sys.executable, "-c", FLOOD, str(server.port), wrong, addresses],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            assert flood.stdin is not None
            assert flood.stdout is not None
            try:
                assert flood.stdout.readline() == b"ready\n"
                verified = server.metric("pushcompat_verifications_total")
                new = es512(channels=["a"], jti="new")
                newcomer.request("GET", f"/channels/a?wait=0&token={new}")
                status, _, body = newcomer.response()
                assert status == 200, body
                server.publish("a", "still here")
                assert follower.frame() == (0x81, b"still here")
                with server.connect() as again:
                    assert again.upgrade(f"/channels/a?token={valid}") == 101
                assert server.metric("pushcompat_admitting") > 100, "the flood was still waiting"
                assert verified < 600
                refused = server.wait_for_metric('pushcompat_refused_total{reason="unavailable",status="503"}', 500)
                assert refused + server.metric("pushcompat_verifications_total") >= 1000
            finally:
                flood.communicate(b"\n", PATIENCE_S)


def es512(**claims: object) -> str:
    return token(PRIVATE["ES512"], "ES512", **claims).decode()
