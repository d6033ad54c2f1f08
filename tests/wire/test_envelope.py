from __future__ import annotations

import json

import pytest

from pushcompat.message import SIGNAL, SIGNAL_KEY, Message
from pushcompat.wire import envelope

EPOCH = "abcd1234"
CURSOR = "abcd1234-000000000000007"


def message(data: bytes = b"hello", json: bool = False, **more: object) -> Message:
    made = Message("chat", data, json, time_ms=1764000000000, sequence=7)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_an_envelope_says_what_where_and_when() -> None:
    assert json.loads(envelope.envelope(message(), EPOCH)) == {
        "id": CURSOR,
        "channel": "chat",
        "data": "hello",
        "time": 1764000000000,
    }


def test_an_envelope_has_type_key_and_spread_only_where_there_are_any() -> None:
    full = json.loads(envelope.envelope(message(type="note", key="k:1", spread_ms=250), EPOCH))
    assert (full["type"], full["key"], full["spread"]) == ("note", "k:1", 250)


def test_the_reserved_key_of_signals_is_not_sent() -> None:
    assert "key" not in json.loads(envelope.envelope(message(SIGNAL, key=SIGNAL_KEY), EPOCH))


@pytest.mark.parametrize(
    "document",
    [
        b'{"b":1,"a":2,"b":3}',
        b"12345678901234567890.10",
        b"1E5",
        b'"\\u00fc\\/"',
        b"[1, 2,\n 3]",
        b"null",
    ],
)
def test_published_json_keeps_its_own_bytes(document: bytes) -> None:
    assert b'"data":' + document + b',"time"' in envelope.envelope(message(document, json=True), EPOCH)


@pytest.mark.parametrize("text", ["", "ü€😀", '"quoted" \\ back', "a\r\nb\tc\0", "</script>\u2028"])
def test_text_comes_out_as_it_went_in(text: str) -> None:
    assert json.loads(envelope.envelope(message(text.encode()), EPOCH))["data"] == text


def test_text_that_looks_like_json_stays_text() -> None:
    assert json.loads(envelope.envelope(message(b'{"a":1}'), EPOCH))["data"] == '{"a":1}'


def test_control_messages_are_json_with_a_cursor() -> None:
    assert json.loads(envelope.opened(CURSOR, 15.0, None)) == {
        "control": "open", "cursor": CURSOR, "heartbeat": 15, "lifetime": None,
    }  # fmt: skip
    assert json.loads(envelope.opened(CURSOR, 2.5, 24))["lifetime"] == 24
    assert json.loads(envelope.ping(CURSOR)) == {"control": "ping", "cursor": CURSOR}
    assert json.loads(envelope.rotate(CURSOR, 900)) == {"control": "rotate", "cursor": CURSOR, "retry": 900}
    assert json.loads(envelope.expired(CURSOR)) == {"control": "expired", "cursor": CURSOR}
    assert json.loads(envelope.reset(CURSOR, ["a", "b"], None)) == {
        "control": "reset", "cursor": CURSOR, "channels": ["a", "b"],
    }  # fmt: skip
    assert json.loads(envelope.reset(CURSOR, ["a"], 40))["spread"] == 40
