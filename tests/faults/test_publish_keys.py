"""Named keys and signed publishes at real servers: what a revoked key, or a request that was recorded, can still do."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pushcompat.hub.unproven import MOST

from ..access.signing import OTHER, TEXT, sign
from ..harness import KEY, Client, Server, running
from ..store import engines

started = contextmanager(running)
CONNECTIONS = 8  # to each server: more than one for each worker


@pytest.fixture(params=["one process", "two workers", "two processes", "two nodes on Redis"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        file = tmp_path / "push.toml"
        file.write_text(f'[[key]]\nname = "signer"\nchannels = ["*"]\nwebhook-secrets = ["{TEXT}"]\n')
        store, names, options = f"sqlite:{tmp_path}/log.sqlite", ["one"], ["--config", str(file)]
        if request.param == "two workers":
            options += ["--workers", "2"]
        elif request.param != "one process":
            names = ["one", "other"]
        if request.param == "two nodes on Redis":
            store = stack.enter_context(engines.running(tmp_path / "redis", "redis")).url()
        yield [stack.enter_context(started(tmp_path / name, "--store", store, *options)) for name in names]


def ask(server: Server, method: str, target: str, body: bytes = b"", key: str = KEY, **headers: str) -> tuple[int, Any]:
    with server.connect() as client:
        fields = {"Authorization": f"Bearer {key}"} if key else {}
        client.request(method, target, body, **{**fields, **headers})
        status, _, answer = client.response()
        return status, json.loads(answer) if answer else None


def add(server: Server, name: str, *channels: str) -> str:
    status, answer = ask(server, "POST", "/keys", json.dumps({"name": name, "channels": channels}).encode())
    assert status == 201, answer
    key: str = answer["key"]
    return key


def publish(client: Client, key: str, channel: str = "orders.1") -> int:
    client.publish(channel, b"x", Authorization=f"Bearer {key}")
    return client.response()[0]


def read(client: Client, cursor: str) -> None:
    """Its process has read the log up to that message: it answers a poll for the one before it."""
    client.request("GET", f"/channels/mark?cursor={cursor}&wait=20")
    status, _, body = client.response()
    assert (status, json.loads(body)["messages"][0]["data"]) == (200, "mark")


def connect(stack: ExitStack, servers: Sequence[Server]) -> list[Client]:
    return [stack.enter_context(server.connect()) for server in servers for _ in range(CONNECTIONS)]


def mark(servers: Sequence[Server], clients: Sequence[Client]) -> None:
    """All processes have read what is in the log by now."""
    before = servers[0].publish("other", "before")["id"]
    servers[0].publish("mark", "mark")
    for client in clients:
        read(client, before)


def test_a_key_is_valid_in_all_processes_and_revoking_it_ends_it_in_all_at_once(servers: list[Server]) -> None:
    key = add(servers[0], "shop", "orders.*")
    with ExitStack() as stack:
        clients = connect(stack, servers)
        mark(servers, clients)
        for _ in range(3):  # the later ones are compared with the first, and not parsed
            assert {publish(client, key) for client in clients} == {200}
        assert ask(servers[-1], "DELETE", "/keys/shop")[0] == 204
        mark(servers[::-1], clients)
        assert {publish(client, key) for client in clients} == {401}
    for server in servers:
        assert [key["name"] for key in ask(server, "GET", "/keys")[1]["keys"]] == ["signer"]


def test_a_signed_publish_that_is_sent_to_other_processes_gets_the_first_answer(servers: list[Server]) -> None:
    headers = sign(b"hello")
    with ExitStack() as stack:
        answers = []
        for client in connect(stack, servers):
            client.request("POST", "/channels/a", b"hello", **headers)
            status, _, body = client.response()
            answers.append((status, json.loads(body)["id"]))
    assert (answers[0][0], len(set(answers))) == (200, 1)
    listed = ask(servers[-1], "GET", "/channels")[1]["channels"]
    assert [(channel["channel"], channel["messages"]) for channel in listed] == [("a", 1)]


def test_keys_outlive_a_restart_and_so_does_their_end(tmp_path: Path) -> None:
    server = Server(tmp_path)
    kept, revoked = add(server, "kept", "orders.*"), add(server, "revoked", "*")
    assert ask(server, "DELETE", "/keys/revoked")[0] == 204
    server.stop(signal.SIGKILL)
    with started(tmp_path) as server:
        with server.connect() as client:
            assert publish(client, kept) == 200
            assert publish(client, kept, "chat") == 403
        with server.connect() as client:
            assert publish(client, revoked) == 401


def test_keys_are_kept_whatever_is_kept_of_other_messages(tmp_path: Path) -> None:
    options = ("--history", "1", "--history-age", "1s", "--history-bytes", "64KiB", "--message-limit", "8KiB")
    with started(tmp_path, *options) as server:
        keys = [add(server, name, "*") for name in ("shop", "blog", "revoked")]
        assert ask(server, "DELETE", "/keys/revoked")[0] == 204
        for number in range(40):
            server.publish(f"c{number}", "x" * 4096)
    with started(tmp_path, *options) as server:
        assert [ask(server, "POST", "/channels/a", b"x", key)[0] for key in keys] == [200, 200, 401]


@pytest.mark.options("--store", "memory:")
def test_with_a_log_in_memory_the_answer_says_how_long_the_key_lives(server: Server) -> None:
    status, answer = ask(server, "POST", "/keys", b'{"name": "shop", "channels": ["*"]}')
    assert (status, "ends with the server's process" in answer["note"]) == (201, True)


def test_a_limited_key_is_refused_by_the_head_and_a_batch_as_a_whole(server: Server) -> None:
    key = add(server, "shop", "orders.*")
    with server.connect() as client:
        for _ in range(3):
            assert publish(client, key) == 200
        client.publish("chat", b"x", Authorization=f"Bearer {key}")
        status, _, body = client.response()
        assert (status, json.loads(body)["detail"]) == (
            403,
            "key shop may not publish to channel chat: its channels are orders.*",
        )
    with server.connect() as client:  # no body is sent: the head is enough
        client.request("POST", "/channels/orders.1,chat", Authorization=f"Bearer {key}", Content_Length="5")
        assert client.response()[0] == 403
    batch = b'[{"channel": "orders.2", "data": "1"}, {"channel": "chat", "data": "2"}]'
    status, answer = ask(server, "POST", "/channels", batch, key, Content_Type="application/json")
    assert (status, "channel chat" in answer["detail"]) == (403, True)
    assert ask(server, "GET", "/channels", key=key)[0] == 403
    listed = ask(server, "GET", "/channels")[1]["channels"]
    assert [channel["channel"] for channel in listed] == ["orders.1"]


def test_the_same_idempotency_key_of_two_keys_is_two_publishes(server: Server) -> None:
    keys = [add(server, name, "*") for name in ("shop", "blog")]
    ids = [ask(server, "POST", "/channels/a", b"x", key, Idempotency_Key="k")[1]["id"] for key in (*keys, *keys)]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]


def test_a_publish_whose_key_is_revoked_before_its_body_is_complete_is_refused(server: Server) -> None:
    key = add(server, "shop", "*")
    with server.connect() as client:
        client.request("POST", "/channels/a", Authorization=f"Bearer {key}", Content_Length="2", Expect="100-continue")
        assert client.head()[0] == 100
        assert ask(server, "DELETE", "/keys/shop")[0] == 204
        client.send(b"xx")
        assert client.response()[0] == 401


def test_what_the_documentation_shows_is_what_the_command_prints(server: Server) -> None:
    docs = " ".join((Path(__file__).parents[2] / "docs" / "access.md").read_text().split())
    key = add(server, "shop", "orders.*", "stock")
    _, answer = ask(server, "POST", "/channels/chat", b"hello", key)
    assert answer["detail"] in docs


# The configuration file


DIGEST = sha256(b"a key of the operator's own").hexdigest()
TABLES = f"""
[[channel]]
pattern = "vip"
publish = ["shop"]

[[channel]]
pattern = "board"
publish = "open"

[[key]]
name = "shop"
channels = ["orders.*", "vip", "a"]
sha256 = "{DIGEST}"
webhook-secrets = ["{TEXT}"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "push.toml"
    path.write_text(TABLES)
    return path


@pytest.fixture
def configured(tmp_path: Path, file: Path) -> Iterator[Server]:
    yield from running(tmp_path / "state", "--config", str(file), "--idempotency-window", "0")


def test_the_keys_and_rules_of_the_configuration_apply(configured: Server) -> None:
    own, other = "a key of the operator's own", add(configured, "other", "*")
    answers = {
        (name, channel): ask(configured, "POST", f"/channels/{channel}", b"x", key)[0]
        for name, key in (("own", own), ("other", other), ("root", KEY), ("none", ""))
        for channel in ("vip", "orders.1", "chat", "board")
    }
    assert {pair: status for pair, status in answers.items() if status != 200} == {
        ("own", "chat"): 403, ("own", "board"): 403, ("other", "vip"): 403,
        ("none", "vip"): 401, ("none", "orders.1"): 401, ("none", "chat"): 401,
    }  # fmt: skip


def test_new_rules_apply_to_the_next_publish_of_a_connection(configured: Server, file: Path) -> None:
    key = "a key of the operator's own"
    with configured.connect() as client:
        for _ in range(3):
            assert publish(client, key, "vip") == 200
        file.write_text(TABLES.replace('["shop"]', '["other"]'))
        configured.process.send_signal(signal.SIGHUP)
        configured.wait_for_log("INFO reload")
        assert publish(client, key, "vip") == 403


def test_a_key_that_is_taken_out_of_the_configuration_is_invalid_from_then_on(configured: Server, file: Path) -> None:
    key = "a key of the operator's own"
    with configured.connect() as client:
        for _ in range(3):
            assert publish(client, key) == 200
        file.write_text("")
        configured.process.send_signal(signal.SIGHUP)
        configured.wait_for_log("INFO reload")
        assert publish(client, key) == 401


# Signed publishes


def signed(server: Server, channel: str, body: bytes, headers: dict[str, str], **more: str) -> tuple[int, Any]:
    return ask(server, "POST", f"/channels/{channel}", body, "", **{**headers, **more})


def test_a_signed_publish_that_is_sent_again_gets_the_first_answer_and_publishes_nothing(configured: Server) -> None:
    headers = sign(b"hello")
    first = signed(configured, "a", b"hello", headers)
    assert first[0] == 200
    assert [signed(configured, "a", b"hello", headers) for _ in range(3)] == [first] * 3
    assert signed(configured, "a", b"hello", sign(b"hello", at=int(headers["webhook-timestamp"]) + 1)) == first
    assert configured.metric("pushcompat_publishes_total") == 1


def test_a_signature_is_good_for_its_body_its_channel_and_its_keys_channels_only(configured: Server) -> None:
    headers = sign(b"hello")
    assert signed(configured, "a", b"hello", headers)[0] == 200
    assert signed(configured, "orders.1", b"hello", headers)[0] == 422
    assert signed(configured, "a?key=k", b"hello", headers)[0] == 422
    assert signed(configured, "chat", b"hello", sign(b"hello", "msg_2"))[0] == 403
    assert signed(configured, "a", b"hallo", headers) == signed(configured, "a", b"hello", sign(b"hello", secret=OTHER))
    assert signed(configured, "a", b"hallo", headers)[0] == 401
    assert configured.metric("pushcompat_publishes_total") == 1


def test_a_signed_batch_is_one_publish(configured: Server) -> None:
    batch = b'[{"channel": "a", "data": "1"}, {"channel": "orders.1", "data": {"n": 2}}]'
    with configured.connect() as client:
        client.request("POST", "/channels", batch, Content_Type="application/json", **sign(batch))
        assert client.response()[0] == 200
        mixed = batch.replace(b'"a"', b'"chat"')
        client.request("POST", "/channels", mixed, Content_Type="application/json", **sign(mixed, "msg_2"))
        assert client.response()[0] == 403
    assert configured.metric("pushcompat_publishes_total") == 1


def test_a_signed_body_that_cannot_be_published_is_told_only_to_who_has_signed_it(configured: Server) -> None:
    assert signed(configured, "a", b"\xff", sign(b"\xff"))[0] == 400
    assert signed(configured, "a", b"\xff", sign(b"\xfe"))[0] == 401
    assert signed(configured, "a", b"{", sign(b"{"), Content_Type="application/json")[0] == 400
    assert signed(configured, "a", b"{", sign(b"["), Content_Type="application/json")[0] == 401
    assert signed(configured, "a", b"x", sign(b"x", "m" * 257))[0] == 400


def test_a_signed_body_over_the_limit_is_refused_by_its_head(configured: Server) -> None:
    with configured.connect() as client:
        client.request("POST", "/channels/a", Content_Length=str(60 * 1024 + 1), **sign(b""))
        assert client.response()[0] == 413


def test_chunks_and_pieces_are_signed_as_one_body(configured: Server) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in sign(b"hello").items())
    with configured.connect() as client:
        client.send(f"POST /channels/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n{fields}\r\n".encode())
        client.send(b"2\r\nhe\r\n")
        client.send(b"3\r\nllo\r\n0\r\n\r\n")
        assert client.response()[0] == 200


def begin(client: Client, headers: dict[str, str], target: str = "/channels/a") -> None:
    """The head of a publish, and half of its body."""
    client.request("POST", target, Content_Length="10", Expect="100-continue", **headers)
    assert client.head()[0] == 100
    client.send(b"hello")


def test_of_too_many_incomplete_publishes_without_a_key_the_oldest_make_room(configured: Server) -> None:
    headers, body = sign(b"hellohello"), b"hellohello"
    with ExitStack() as stack:
        clients = [stack.enter_context(configured.connect()) for _ in range(MOST + 2)]
        for number, client in enumerate(clients):
            if number % 2:
                begin(client, headers)
            else:
                begin(client, {}, "/channels/board")
        for client in clients[:2]:
            status, fields, _ = client.response()
            assert (status, fields["retry-after"]) == (503, "1")
        with configured.connect() as client:  # not incomplete, or with a key
            client.request("POST", "/channels/a", body, **headers)
            assert client.response()[0] == 200
            begin(client, {"Authorization": f"Bearer {KEY}"})
            for other in clients[2:]:
                other.send(b"hello")
                assert other.response()[0] == 200
            client.send(b"hello")
            assert client.response()[0] == 200


def test_no_field_of_a_signature_and_no_key_is_an_error_of_the_server(configured: Server) -> None:
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        for value in ("", "v1,\xe9", "nan", "1e400", "\xff" * 100, "v1,a,b c", "-1", "0"):
            with configured.connect() as client:
                lines = "".join(f"{n}: {v}\r\n" for n, v in {**sign(b"hello"), name: value}.items())
                head = f"POST /channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n{lines}\r\n"
                client.send(head.encode("latin-1") + b"hello")
                assert client.response()[0] == 401, (name, value)
    with configured.connect() as client:
        client.send("POST /channels/a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \xe9\r\n\r\n".encode("latin-1"))
        assert client.response()[0] == 401
    assert configured.complaints() == []


def test_what_was_signed_is_remembered_over_a_restart(tmp_path: Path, file: Path) -> None:
    headers = sign(b"hello")
    answers = []
    for _ in range(2):
        server = Server(tmp_path / "state", "--config", str(file), "--idempotency-window", "0")
        answers.append(signed(server, "a", b"hello", headers))
        server.stop(signal.SIGKILL)
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
