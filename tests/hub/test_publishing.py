from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pushcompat import logs
from pushcompat.access.grant import Grant
from pushcompat.hub.connection import Connection, State
from pushcompat.hub.publishing import Publishing
from pushcompat.limits import Retention
from pushcompat.message import format_cursor
from pushcompat.store.base import Done, Publish
from pushcompat.store.memory import MemoryStore
from pushcompat.wire.request import parse_head

from ..harness import KEY, Client, Server, running, sequence
from .rig import Rig
from .slow_store import SlowStore

JSON = "application/json"
LIMIT = 60 * 1024
BEARER = f"Authorization: Bearer {KEY}\r\n".encode()


def answered(client: Client) -> Any:
    """The answer to a publish that was taken."""
    status, _, body = client.response()
    assert status == 200, body
    return json.loads(body)


def texts(client: Client, channel: str) -> list[Any]:
    return [message["data"] for message in client.retained(channel)]


def chunked(target: bytes, *chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return b"POST %b HTTP/1.1\r\nHost: test\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (target, BEARER, body)


# What is taken


def test_the_answer_has_the_cursor_of_the_message_and_counts_subscribers(shared_client: Client) -> None:
    before = shared_client.poll("answer")["cursor"]
    shared_client.publish("answer,answer-too", b"hi")
    answer = answered(shared_client)
    assert answer["channels"] == {"answer": {"subscribers": 0}, "answer-too": {"subscribers": 0}}
    assert sequence(answer["id"]) == sequence(before) + 2
    assert [m["data"] for m in shared_client.poll("answer", f"cursor={before}")["messages"]] == ["hi"]
    assert shared_client.poll("answer,answer-too", f"cursor={answer['id']}")["messages"] == []


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "text/html; charset=UTF-8", "TEXT/X; charset=utf8", "application/x-www-form-urlencoded"],
)
def test_text_is_published_as_it_is(shared_client: Client, content_type: str) -> None:
    more = {"Content_Type": content_type} if content_type else {}
    shared_client.publish("as-text?key=only", '{"ü": "€"}\r\n'.encode(), **more)
    answered(shared_client)
    assert texts(shared_client, "as-text") == ['{"ü": "€"}\r\n']


@pytest.mark.parametrize(
    "document",
    [
        b'{"z":1,"a":2,"z":3}',
        b"12345678901234567890.10",
        b"1E+2",
        b"-0",
        b'"\\u00fc\\/"',
        b"[1, 2,\r\n 3]",
        b"null",
        b"[" * 100 + b"]" * 100,
    ],
)
def test_json_survives_byte_for_byte(shared_client: Client, document: bytes) -> None:
    shared_client.publish("as-json?key=only", b" \r\n" + document + b"\n", Content_Type=f"{JSON}; charset=utf-8")
    answered(shared_client)
    shared_client.poll("as-json")
    shared_client.request("GET", "/channels/as-json?cursor=earliest")
    assert b'"data":' + document + b',"time"' in shared_client.response()[2]


@pytest.mark.parametrize("content_type", ["text/plain", JSON])
def test_an_empty_body_is_the_signal(shared_client: Client, content_type: str) -> None:
    for _ in range(3):
        shared_client.publish("signal", Content_Type=content_type)
        answered(shared_client)
    (message,) = shared_client.retained("signal")  # it has a key of its own, so only the last one counts
    assert message["data"] == "UPDATED"
    assert "key" not in message


def test_only_the_latest_message_of_a_key_is_retained(shared_client: Client) -> None:
    for channel in ("keyed?key=k", "keyed", "keyed?key=k&type=note", "keyed?key=j", "keyed-too?key=k"):
        shared_client.publish(channel, channel.encode())
        answered(shared_client)
    kept = [(m["data"], m.get("key"), m.get("type")) for m in shared_client.retained("keyed")]
    assert kept == [("keyed", None, None), ("keyed?key=k&type=note", "k", "note"), ("keyed?key=j", "j", None)]
    assert texts(shared_client, "keyed-too") == ["keyed-too?key=k"]


def test_a_signal_can_have_a_key(shared_client: Client) -> None:
    for key in ("a", "b", "a"):
        shared_client.publish(f"signals?key={key}")
        answered(shared_client)
    assert [m["key"] for m in shared_client.retained("signals")] == ["b", "a"]


def test_a_message_is_dropped_when_its_time_is_over(shared_client: Client) -> None:
    shared_client.publish("ttl", b"first")
    cursor = answered(shared_client)["id"]
    shared_client.publish("ttl?ttl=0.01", b"short-lived")
    answered(shared_client)
    shared_client.publish("ttl?ttl=1e9", b"long-lived")
    answered(shared_client)
    while "short-lived" in texts(shared_client, "ttl"):
        shared_client.request("GET", "/channels/ttl-clock?wait=1")  # a poll's end is on the clock that drops messages
        shared_client.response()
    assert texts(shared_client, "ttl") == ["first", "long-lived"]
    later = shared_client.poll("ttl", f"cursor={cursor}")
    assert ([m["data"] for m in later["messages"]], later.get("reset")) == (["long-lived"], None)


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_a_message_may_be_as_large_as_the_limit(shared_client: Client, size: int) -> None:
    shared_client.publish("large?key=only", b"x" * size)
    answered(shared_client)
    shared_client.send(chunked(b"/channels/large?key=only", b"y" * (size - 1), b"z"))
    answered(shared_client)
    assert [len(text) for text in texts(shared_client, "large")] == [size]


def test_a_chunked_body_leaves_the_connection_to_the_next_request(shared_client: Client) -> None:
    poll = b"GET /channels/chunked HTTP/1.1\r\nHost: test\r\n\r\n"
    one, two = chunked(b"/channels/chunked", b"he", b"llo"), chunked(b"/channels/chunked", b"\r\n\r\n", b"0\r\n\r\n")
    shared_client.send(one)
    answered(shared_client)
    shared_client.send(two + one + poll)
    answered(shared_client)
    answered(shared_client)
    assert shared_client.response()[0] == 200
    assert texts(shared_client, "chunked") == ["hello", "\r\n\r\n0\r\n\r\n", "hello"]


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_a_chunked_body_may_come_with_an_upgrade_that_is_ignored(shared_client: Client, upgrade: bytes) -> None:
    data = chunked(b"/channels/upgrade?key=only", b"hi")
    shared_client.send(data.replace(b"\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % upgrade, 1))
    answered(shared_client)
    assert texts(shared_client, "upgrade") == ["hi"]


def test_a_handshake_behind_a_chunked_publish_is_answered(shared_client: Client) -> None:
    shared_client.send(
        chunked(b"/channels/shake", b"hi")
        + b"GET /channels/shake?cursor=earliest HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answered(shared_client)
    assert shared_client.head()[0] == 101
    assert shared_client.frame() == (0x81, b"hi")


# What is refused


@pytest.mark.parametrize(
    ("query", "body", "content_type", "expected", "said"),
    [
        ("", b"\xff", "text/plain", 400, "not UTF-8 at byte 0"),
        ("", b"ab\xc3", "text/plain", 400, "not UTF-8 at byte 2"),
        ("", b"\xed\xa0\x80", "text/plain", 400, "not UTF-8"),
        ("", b'"\xff"', JSON, 400, "not UTF-8"),
        ("", b"{", JSON, 400, "invalid JSON"),
        ("", b"hello", JSON, 400, "text/plain"),
        ("", b"1 2", JSON, 400, "invalid JSON"),
        ("", b" ", JSON, 400, "invalid JSON"),
        ("", b"NaN", JSON, 400, "invalid JSON"),
        ("", b"{'a': 1}", JSON, 400, "invalid JSON"),
        ("", b'"\\ud800"', JSON, 400, "invalid JSON"),
        ("", b"[" * 60_000, JSON, 400, "nested too deep"),
        ("", b"[" * 30_000 + b"]" * 30_000, JSON, 400, "nested too deep"),
        ("", b'{"a":' * 12_000, JSON, 400, "nested too deep"),
        ("", b"x", "image/png", 415, "image/png"),
        ("", b"x", "multipart/form-data; boundary=x", 415, "multipart/form-data"),
        ("", b"x", "text/plain; charset=latin-1", 415, "utf-8"),
        ("key=a%20b", b"x", "text/plain", 400, "key="),
        ("key=%ff", b"x", "text/plain", 400, "key="),
        ("type=control", b"x", "text/plain", 400, "control"),
        ("type=control-note", b"x", "text/plain", 400, "control"),
        ("type=a%0adata:%20b", b"x", "text/plain", 400, "type="),
        ("type=" + "x" * 129, b"x", "text/plain", 400, "type="),
        ("ttl=0", b"x", "text/plain", 400, "ttl"),
        ("ttl=-1", b"x", "text/plain", 400, "ttl="),
        ("ttl=soon", b"x", "text/plain", 400, "ttl="),
        ("ttl=nan", b"x", "text/plain", 400, "ttl="),
        ("", b"x" * (LIMIT + 1), "text/plain", 413, f"{LIMIT} bytes"),
    ],
)
def test_invalid_publishes_are_refused_and_not_stored(
    shared_client: Client, shared_server: Server, query: str, body: bytes, content_type: str, expected: int, said: str
) -> None:
    shared_client.publish(f"refused?{query}", body, Content_Type=content_type)
    status, headers, detail = shared_client.problem()
    assert (status, said in detail) == (expected, True), detail
    with shared_server.connect() as other:
        assert texts(other, "refused") == []
    # What was refused by its head alone can not be told from the next request, so the connection ends.
    assert headers["connection"] == ("close" if expected in (413, 415) else "keep-alive")


def test_a_compressed_body_is_refused(shared_client: Client) -> None:
    shared_client.publish("refused", b"x", Content_Encoding="gzip")
    assert shared_client.problem()[0] == 415


@pytest.mark.parametrize("length", [b"1000000000", b"18446744073709551615"])
def test_a_gigabyte_is_refused_when_it_is_announced(shared_client: Client, length: bytes) -> None:
    shared_client.send(b"POST /channels/giga HTTP/1.1\r\nHost: test\r\n" + BEARER + b"Content-Length: " + length)
    shared_client.send(b"\r\n\r\n")
    status, headers, _ = shared_client.problem()
    assert (status, headers["connection"]) == (413, "close")
    assert shared_client.to_end() == b""


def test_a_body_without_an_end_is_refused_as_soon_as_it_is_too_large(shared_client: Client) -> None:
    shared_client.send(
        b"POST /channels/giga HTTP/1.1\r\nHost: test\r\n" + BEARER + b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(5):
        shared_client.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
    assert shared_client.problem()[0] == 413
    assert shared_client.to_end() == b""


@pytest.mark.parametrize("body", [b"x\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"1\nx\n0\n\n", b"-1\r\n\r\n"])
def test_a_malformed_chunked_body_is_refused(shared_client: Client, body: bytes) -> None:
    shared_client.send(b"POST /channels/refused HTTP/1.1\r\nHost: test\r\n" + BEARER)
    shared_client.send(b"Transfer-Encoding: chunked\r\n\r\n" + body)
    status, headers, detail = shared_client.problem()
    assert (status, headers["connection"], "chunked" in detail) == (400, "close", True)
    assert shared_client.to_end() == b""


@pytest.mark.parametrize(
    ("authorization", "said"), [(None, "Authorization: Bearer KEY"), ("Bearer wrong", "invalid publish key")]
)
def test_a_publisher_without_a_valid_key_gets_the_reason(
    shared_server: Server, shared_client: Client, authorization: str | None, said: str
) -> None:
    shared_client.request("POST", "/channels/refused", **({"Authorization": authorization} if authorization else {}))
    status, headers, detail = shared_client.problem()
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="pushcompat"')
    assert said in detail
    shared_server.wait_for_log("status=401")
    assert not any(KEY in line or "wrong" in line for line in shared_server.log)


# Batches


def batch(client: Client, items: object, **more: str) -> None:
    client.request(
        "POST", "/channels", json.dumps(items).encode(),
        **{"Authorization": f"Bearer {KEY}", "Content-Type": JSON, **more},
    )  # fmt: skip


def test_a_batch_is_published_in_order(shared_client: Client) -> None:
    batch(
        shared_client,
        [
            {"channel": "batch-a", "data": "text", "type": "note"},
            {"channel": "batch-b", "data": {"x": [1.5]}, "key": "k"},
            {"channel": "batch-a", "data": None},
            {"channel": "batch-a"},
            {"channel": "batch-b", "data": "", "ttl": 1000},
        ],
    )
    answer = answered(shared_client)
    assert answer["channels"] == {"batch-a": {"subscribers": 0}, "batch-b": {"subscribers": 0}}
    got = shared_client.retained("batch-a,batch-b")
    assert [(m["channel"], m["data"], m.get("type"), m.get("key")) for m in got] == [
        ("batch-a", "text", "note", None),
        ("batch-b", {"x": [1.5]}, None, "k"),
        ("batch-a", None, None, None),
        ("batch-a", "UPDATED", None, None),
        ("batch-b", "UPDATED", None, None),
    ]
    numbers = [sequence(m["id"]) for m in got]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert answer["id"] == got[-1]["id"]


def test_json_in_a_batch_keeps_its_own_bytes(shared_client: Client) -> None:
    shared_client.request(
        "POST", "/channels", b'[{"data": {"b":1.10, "a":1e5} , "channel":"batch-bytes"}]',
        Authorization=f"Bearer {KEY}", Content_Type=JSON,
    )  # fmt: skip
    answered(shared_client)
    shared_client.request("GET", "/channels/batch-bytes?cursor=earliest")
    assert b'"data":{"b":1.10, "a":1e5},"time"' in shared_client.response()[2]


GOOD = {"channel": "batch-refused", "data": "good"}


@pytest.mark.parametrize(
    ("items", "expected", "said"),
    [
        ([], 400, "1 to 1000 messages, not 0"),
        ([GOOD] * 1001, 400, "not 1001"),
        ({"channel": "batch-refused"}, 400, "array"),
        ("text", 400, "array"),
        ([GOOD, "text"], 400, r"\$\[1\]"),
        ([GOOD, {"data": "x"}], 400, r"channel.*\$\[1\]"),
        ([GOOD, {**GOOD, "colour": "red"}], 400, r"colour.*\$\[1\]"),
        ([GOOD, {**GOOD, "ttl": "x"}], 400, r"\$\[1\]\.ttl"),
        ([GOOD, {**GOOD, "channel": "a b"}], 400, "message 1 of the batch: invalid channel name 'a b'"),
        ([GOOD, {**GOOD, "channel": "a,b"}], 400, "message 1 of the batch"),
        ([GOOD, {**GOOD, "channel": ""}], 400, "message 1 of the batch"),
        ([GOOD, GOOD, {**GOOD, "key": "a b"}], 400, "message 2 of the batch: key="),
        ([GOOD, {**GOOD, "key": ""}], 400, "message 1 of the batch: key="),
        ([GOOD, {**GOOD, "type": "control"}], 400, "message 1 of the batch.*control"),
        ([GOOD, {**GOOD, "ttl": 0}], 400, "message 1 of the batch: ttl"),
        ([GOOD, {**GOOD, "ttl": -1}], 400, "message 1 of the batch: ttl"),
        ([GOOD, {**GOOD, "id": "\ud800"}], 400, "."),
        ([GOOD, {**GOOD, "id": 1}], 400, r"\$\[1\]\.id"),
        ([GOOD, {**GOOD, "id": "x" * 257}], 400, "message 1 of the batch: an id"),
        ([GOOD, {**GOOD, "data": "x" * (LIMIT + 1)}], 413, f"message 1 of the batch.*{LIMIT} bytes"),
        ([GOOD, {**GOOD, "data": ["x" * LIMIT]}], 413, "message 1 of the batch"),
    ],
)
def test_a_batch_is_all_or_nothing_and_its_error_names_the_message(
    shared_client: Client, items: object, expected: int, said: str
) -> None:
    batch(shared_client, items)
    status, headers, detail = shared_client.problem()
    assert (status, headers["connection"]) == (expected, "keep-alive")
    assert re.search(said, detail), detail
    assert texts(shared_client, "batch-refused") == []


def test_a_batch_is_json_and_its_parameters_stand_in_its_messages(shared_client: Client, shared_server: Server) -> None:
    batch(shared_client, [GOOD], Content_Type="text/plain")
    assert shared_client.problem()[0] == 415
    for name in ("key", "type", "ttl"):
        with shared_server.connect() as client:
            client.request("POST", f"/channels?{name}=1", b"[]", Authorization=f"Bearer {KEY}", Content_Type=JSON)
            status, _, detail = client.problem()
            assert (status, "per message" in detail) == (400, True)


def test_a_batch_has_a_limit_of_its_own(shared_client: Client) -> None:
    batch(shared_client, [{"channel": "batch-large", "data": "x" * 60_000}] * 16)
    answered(shared_client)
    assert len(shared_client.retained("batch-large")) > 1
    batch(shared_client, [{"channel": "batch-large", "data": "x" * 60_000}] * 18)
    assert shared_client.problem()[0] == 413


def test_items_of_a_batch_whose_ids_were_published_are_left_out_and_the_response_names_them(
    shared_client: Client,
) -> None:
    def item(name: str, data: object = "x", **more: object) -> dict[str, object]:
        return {"channel": "batch-ids", "data": data, "id": name, **more}

    batch(shared_client, [item("ids-1"), {"channel": "batch-ids"}, item("ids-2", {"n": 1}, key="k", ttl=60)])
    first = answered(shared_client)
    batch(shared_client, [item("ids-3"), item("ids-2", {"n": 1}, key="k", ttl=60.0), item("ids-1")])
    second = answered(shared_client)
    batch(shared_client, [item("ids-1")])
    third = answered(shared_client)
    assert [answer["repeated"] for answer in (first, second, third)] == [[], [1, 2], [0]]
    assert first["channels"] == second["channels"] == {"batch-ids": {"subscribers": 0}}
    got = shared_client.retained("batch-ids")
    assert [message["data"] for message in got] == ["x", "UPDATED", {"n": 1}, "x"]
    assert [first["id"], second["id"], third["id"]] == [got[2]["id"], got[3]["id"], got[0]["id"]]
    for changed in ({"data": "y"}, {"data": 1}, {"channel": "batch-ids-2"}, {"key": "k"}, {"type": "t"}, {"ttl": 9}):
        batch(shared_client, [item("ids-4"), item("ids-1", **changed)])  # type: ignore[arg-type]
        status, _, detail = shared_client.problem()
        assert (status, detail.partition(":")[0]) == (422, "message 1 of the batch")
    batch(shared_client, [item("ids-5"), item("ids-5", "y")])
    assert shared_client.problem()[0] == 422
    batch(shared_client, [item("ids-5"), item("ids-4")])
    assert answered(shared_client)["repeated"] == []


def test_a_batch_may_have_ids_and_a_key(shared_client: Client) -> None:
    item = {"channel": "batch-both", "id": "both-1"}
    batch(shared_client, [item])
    answered(shared_client)
    answers = []
    for _ in range(2):
        batch(shared_client, [item, {**item, "id": "both-2"}], Idempotency_Key="both")
        answers.append(answered(shared_client))
    assert answers[0]["repeated"] == [0]
    assert answers[0] == answers[1]
    batch(shared_client, [item], Idempotency_Key="both")
    assert "Idempotency-Key" in shared_client.problem()[2]
    shared_client.publish("batch-both", b"x", Idempotency_Key="both-1")  # a key is no id
    assert "repeated" not in answered(shared_client)
    assert texts(shared_client, "batch-both") == ["UPDATED", "x"]


def test_a_get_never_publishes(shared_client: Client) -> None:
    authorised = {"Authorization": f"Bearer {KEY}"}
    before = shared_client.retained("by-get")
    for target in ("?wait=0&data=UPDATED&1259000000", "?wait=0&type=t&key=k&ttl=60", "?wait=0&id=1"):
        shared_client.request("GET", f"/channels/by-get{target}", **authorised)
        shared_client.response()
        shared_client.request("GET", f"/channels{target}", **authorised)
        shared_client.response()
    assert shared_client.retained("by-get") == before == []


# Again


def test_a_repeated_publish_returns_the_first_answer_and_is_delivered_once(
    shared_client: Client, shared_server: Server
) -> None:
    answers = []
    for data in ("b", "a"):  # a header's name may be in any case
        name = "Idempotency-Key" if data == "a" else "idempotency-key"
        shared_client.publish("again", b"x", **{name: "key-1"})
        answers.append(answered(shared_client))
        with shared_server.connect() as other:
            other.publish("again", b"x", Idempotency_Key="key-1")
            answers.append(answered(other))
    assert answers == [answers[0]] * 4
    assert texts(shared_client, "again") == ["x"]


KEY_LINES = {
    "usual": "Idempotency-Key: ~",
    "upper": "IDEMPOTENCY-KEY: ~",
    "mixed": "idempotency-KEY: ~",
    "close": "Idempotency-Key:~",
    "wide": "Idempotency-Key:   ~",
    "trailing": "Idempotency-Key: ~  ",
    "words": "Idempotency-Key: ~ ~",
    "twice": "Idempotency-Key: ~\r\nIdempotency-Key: other",
}


@pytest.mark.parametrize("written", KEY_LINES)
def test_a_repeat_is_recognised_however_its_key_is_written(shared_client: Client, written: str) -> None:
    line = KEY_LINES[written].replace("~", written)
    head = f"POST /channels/{written} HTTP/1.1\r\nHost: test\r\n{line}\r\n".encode()
    ids = set()
    for body in (b"x", b"x", b"y", b"y", b"x"):
        shared_client.send(head + BEARER + b"Content-Length: 1\r\n\r\n" + body)
        status, _, answer = shared_client.response()
        assert status == (200 if body == b"x" else 422)
        ids.add(json.loads(answer).get("id"))
    assert len(ids - {None}) == 1
    assert texts(shared_client, written) == ["x"]


def test_repeats_that_come_at_once_are_delivered_once(shared_client: Client) -> None:
    body = b"POST /channels/at-once HTTP/1.1\r\nHost: test\r\nIdempotency-Key: at-once\r\n" + BEARER
    shared_client.send((body + b"Content-Length: 1\r\n\r\nx") * 20)
    assert len({answered(shared_client)["id"] for _ in range(20)}) == 1
    assert texts(shared_client, "at-once") == ["x"]


@pytest.mark.parametrize(
    ("target", "body", "more"),
    [
        ("/channels/reused", b"y", {}),
        ("/channels/reused,other", b"x", {}),
        ("/channels/reused?key=k", b"x", {}),
        ("/channels/reused?ttl=5", b"x", {}),
        ("/channels/reused?type=t", b"x", {}),
        ("/channels/reused", b"1", {"Content_Type": JSON}),
        ("/channels", b'[{"channel":"reused","data":"x"}]', {"Content_Type": JSON}),
    ],
)
def test_an_idempotency_key_does_not_fit_another_publish(
    shared_client: Client, target: str, body: bytes, more: dict[str, str]
) -> None:
    shared_client.publish("reused", b"x", Idempotency_Key="reused")
    answered(shared_client)
    shared_client.request("POST", target, body, Authorization=f"Bearer {KEY}", Idempotency_Key="reused", **more)
    status, headers, detail = shared_client.problem()
    assert (status, headers["connection"]) == (422, "keep-alive")
    assert "new key" in detail
    assert texts(shared_client, "reused") == ["x"]


def test_a_refused_publish_does_not_use_its_key_up(shared_client: Client) -> None:
    shared_client.publish("unused", b"\xff", Idempotency_Key="unused")
    assert shared_client.problem()[0] == 400
    shared_client.publish("unused", b"x", Idempotency_Key="unused")
    answered(shared_client)


@pytest.mark.parametrize("name", ["Idempotency-Key", "IDEMPOTENCY-KEY"])
def test_an_idempotency_key_has_at_most_256_characters(shared_client: Client, name: str) -> None:
    for _ in range(2):  # parsed, and compared with the one before
        shared_client.publish("long-key", b"x", **{name: "k" * 256})
        answered(shared_client)
        shared_client.publish("long-key", b"x", **{name: "k" * 257})
        status, _, detail = shared_client.problem()
        assert (status, "256 characters" in detail) == (400, True)
    assert texts(shared_client, "long-key") == ["x"]


@pytest.mark.parametrize("sent", [0, 20, -1, None])
def test_a_publish_that_breaks_before_its_answer_and_comes_again_is_delivered_once(
    shared_server: Server, sent: int | None
) -> None:
    channel = f"broken-{sent}"
    with shared_server.connect() as subscriber:
        subscriber.upgrade(f"/channels/{channel}")
        body = b"POST /channels/%b HTTP/1.1\r\nHost: test\r\nIdempotency-Key: %b\r\n" % ((channel.encode(),) * 2)
        data = body + BEARER + b"Content-Length: 5\r\n\r\nhello"
        for _ in range(5):
            with shared_server.connect() as client:
                client.send(data[:sent])
                client.reset()
        with shared_server.connect() as client:
            client.send(data)
            first = answered(client)
            client.send(data)
            assert answered(client) == first
            client.publish(channel, b"next")
            answered(client)
        assert [subscriber.frame() for _ in range(2)] == [(0x81, b"hello"), (0x81, b"next")]


@pytest.mark.options("--idempotency-window", "0")
def test_without_a_window_every_publish_is_new(client: Client) -> None:
    for _ in range(2):
        client.publish("again", b"x", Idempotency_Key="key")
        answered(client)
    assert texts(client, "again") == ["x", "x"]


# Who listens


@pytest.fixture(scope="module")
def spreading_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--refetch-rate", "3", "--history", "1")


def test_refetches_are_spread_over_as_long_as_the_application_needs(spreading_server: Server) -> None:
    with spreading_server.connect() as client, spreading_server.connect() as poller, spreading_server.connect() as one:
        one.request("GET", "/channels/spread?format=json", Accept="text/event-stream")
        one.head()
        one.event()
        one.event()
        cursor = poller.poll("spread")["cursor"]
        poller.poll("spread", f"cursor={cursor}")  # is between two polls now
        client.publish("spread", b"x")
        assert answered(client)["channels"] == {"spread": {"subscribers": 2}}
        assert json.loads(one.event()["data"])["spread"] == 667  # rounded up
        batch(client, [{"channel": "spread"}, {"channel": "nobody-there"}])
        answered(client)
        assert json.loads(one.event()["data"])["spread"] == 667  # rounded up
        assert client.retained("nobody-there")[0]["spread"] == 0
        reset = poller.poll("spread", f"cursor={cursor}")
        assert (reset["reset"], reset["spread"]) == (["spread"], 667)


def test_without_a_rate_nothing_is_spread(shared_client: Client) -> None:
    shared_client.publish("not-spread", b"x")
    answered(shared_client)
    assert "spread" not in shared_client.retained("not-spread")[0]
    assert "spread" not in shared_client.poll("not-spread", "cursor=unknown")


def test_everyone_who_follows_is_counted_once_pollers_between_polls_included(shared_server: Server) -> None:
    with shared_server.connect() as socket, shared_server.connect() as stream, shared_server.connect() as poller:
        socket.upgrade("/channels/counted,counted")
        stream.request("GET", "/channels/counted,counted-too", Accept="text/event-stream")
        stream.head()
        cursor = poller.poll("counted")["cursor"]
        poller.poll("counted", f"cursor={cursor}")
        with shared_server.connect() as one_poll_per_connection:
            target = f"/channels/counted?cursor={cursor}&wait=0"
            one_poll_per_connection.send(b"GET %b HTTP/1.0\r\n\r\n" % target.encode())
            one_poll_per_connection.to_end()
        with shared_server.connect() as only_asks_for_a_cursor:
            only_asks_for_a_cursor.poll("counted")
        with shared_server.connect() as client:
            client.publish("counted,counted-too", b"x")
            assert answered(client)["channels"] == {"counted": {"subscribers": 4}, "counted-too": {"subscribers": 1}}
            poller.poll("counted-too", f"cursor={cursor}")
            client.publish("counted,counted-too", b"x")
            assert answered(client)["channels"] == {"counted": {"subscribers": 3}, "counted-too": {"subscribers": 2}}


@pytest.mark.options("--poll-grace", "1")
def test_a_poller_that_does_not_come_back_is_no_subscriber(server: Server) -> None:
    with server.connect() as poller, server.connect() as client:
        poller.poll("grace", "cursor=" + poller.poll("grace")["cursor"])
        client.publish("grace")
        assert answered(client)["channels"]["grace"]["subscribers"] == 1
        server.wait_for_log(r"unsubscribe channels=grace .*reason=left")
        client.publish("grace")
        assert answered(client)["channels"]["grace"]["subscribers"] == 0


# Inside


def submit(publishing: Publishing, rig: Rig) -> Connection:
    connection = rig.connect()
    request = parse_head(b"POST /channels/a HTTP/1.1\r\nHost: test\r\n\r\n")
    publishing.submit(connection, request, ["a"], Grant("publisher"))
    return connection


def test_a_publish_is_under_way_from_its_body_to_its_answer(rig: Rig) -> None:
    """So a stopping server waits for it at every moment in between."""
    store = SlowStore()
    publishing = Publishing(rig.context, store, rig.fanout, rig.responses)
    assert (publishing.busy, publishing.ready) == (False, False)
    submit(publishing, rig)
    assert (publishing.busy, publishing.ready) == (True, True)
    publishing.commit()
    assert (publishing.busy, publishing.ready) == (True, False)
    submit(publishing, rig)
    publishing.commit()  # the log has one group at a time
    assert (len(store.groups), publishing.ready) == (1, False)
    store.store()
    assert (publishing.busy, publishing.ready) == (True, True)  # in the log, but not read from there yet
    publishing.commit()
    store.store()
    rig.publish("a", "a")
    publishing.settle()
    assert not publishing.busy


def test_publishes_that_the_log_has_not_stored_are_not_answered_and_their_publishers_not_read(rig: Rig) -> None:
    publishing = Publishing(rig.context, SlowStore(), rig.fanout, rig.responses)
    connection = submit(publishing, rig)
    assert connection.state is State.READING_HEAD
    publishing.commit()
    rig.sockets.flush_writes()
    assert (connection.state, rig.read(connection)) == (State.PUBLISHING, [])


def test_a_log_that_raises_refuses_its_group_and_takes_the_next_one(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(SlowStore):
        failed = False

        def append(self, group: Sequence[Publish], done: Done) -> None:
            if not self.failed:
                self.failed = True
                raise OSError("disk full")
            super().append(group, done)

    store = Failing()
    publishing = Publishing(rig.context, store, rig.fanout, rig.responses)
    connections = [submit(publishing, rig) for _ in range(3)]
    publishing.commit()
    rig.sockets.flush_writes()
    for connection in connections:
        lines = rig.read(connection)
        assert lines[0] == "HTTP/1.1 503 Service Unavailable"
        assert "retry with the same Idempotency-Key" in lines[-1]
    assert "store append failed for 3 publishes" in caplog.text
    assert not publishing.busy
    submit(publishing, rig)
    publishing.commit()
    assert len(store.groups) == 1


def test_the_publishes_of_a_turn_are_one_log_line_at_debug_level(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[Any] = []
    monkeypatch.setattr(logs, "_level", logging.DEBUG)
    monkeypatch.setattr(logs, "_write", entries.append)
    store = MemoryStore(Retention())
    publishing = Publishing(rig.context, store, rig.fanout, rig.responses)
    for names in (["a"], ["b", "a"], ["c"]):
        request = parse_head(b"POST /channels/a HTTP/1.1\r\nHost: test\r\nIdempotency-Key: 0\r\n\r\n")
        publishing.submit(rig.connect(), request, names, Grant(names[0]))
    publishing.commit()
    ((_, level, name, fields),) = entries
    assert (level, name) == (logging.DEBUG, "publish")
    assert fields == {"channels": ("a", "b", "c"), "id": format_cursor(store.epoch, 4), "messages": 4}
    request = parse_head(b"POST /channels/a HTTP/1.1\r\nHost: test\r\nIdempotency-Key: 0\r\n\r\n")
    publishing.submit(rig.connect(), request, ["a"], Grant("a"))
    publishing.commit()
    assert len(entries) == 1, "a repeat is no publish"
