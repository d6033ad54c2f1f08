"""What is encoded here is read by a reader written from the standard (WHATWG HTML §9.2.6)."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.message import Message
from pushcompat.wire.encoding import StreamEncoding
from pushcompat.wire.eventsource import Chunked, JsonEvents, TextEvents, event
from pushcompat.wire.request import parse_head
from pushcompat.wire.streams import stream_encoding

from ..harness import Chunks

EPOCH = "abcd1234"
CURSOR = "abcd1234-000000000000007"


def read(stream: bytes) -> list[dict[str, str]]:
    """The events that a browser would dispatch: ``type``, ``data`` and ``lastEventId``."""
    events: list[dict[str, str]] = []
    data: list[str] = []
    kind = last_id = ""
    for line in re.split(r"\r\n|\r|\n", stream.decode()):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append({"type": kind or "message", "data": "\n".join(data), "lastEventId": last_id})
            data, kind = [], ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


def message(data: str, kind: str | None = None, sequence: int = 7) -> Message:
    return Message("chat", data.encode(), type=kind, sequence=sequence)


def stream_head(version: str) -> bytes:
    request = parse_head(b"GET /channels/chat HTTP/%b\r\nHost: test\r\n\r\n" % version.encode())
    return stream_encoding("eventsource", "text", request.fields.version).head(request, b"Vary: Origin\r\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_may_not_be_cached_compressed_or_buffered(version: str) -> None:
    head = stream_head(version)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Type: text/event-stream\r\n" in head
    assert b"\r\nConnection: close\r\n" in head
    assert b"\r\nCache-Control: no-store, no-transform\r\n" in head
    assert b"\r\nX-Accel-Buffering: no\r\n" in head
    assert head.endswith(b"Vary: Origin\r\n\r\n")
    assert b"Content-Length" not in head


@pytest.mark.parametrize(("version", "chunked"), [("1.0", False), ("1.1", True)])
def test_a_stream_is_chunked_where_the_client_knows_chunks(version: str, chunked: bool) -> None:
    assert (b"\r\nTransfer-Encoding: chunked\r\n" in stream_head(version)) is chunked


@pytest.mark.parametrize("text_format", ["text", "json"])
def test_connections_of_one_format_and_version_share_an_encoding(text_format: str) -> None:
    chunked, plain = (stream_encoding("eventsource", text_format, version) for version in ("1.1", "1.0"))
    assert chunked is stream_encoding("eventsource", text_format, "1.1")
    assert plain is stream_encoding("eventsource", text_format, "1.0")
    assert chunked is not plain


@pytest.mark.parametrize("plain", [JsonEvents(), TextEvents()])
def test_each_send_is_one_chunk_of_the_same_events(plain: StreamEncoding) -> None:
    def sends(encoding: StreamEncoding) -> list[bytes]:
        return [
            encoding.open(CURSOR, 15.0, None, 700),
            encoding.messages([message("a\r\nb", "note"), message("c" * 5000)], EPOCH, 8),
            encoding.ping(CURSOR),
            encoding.reset(CURSOR, ["chat"], 40),
            encoding.rotate(CURSOR, 900),
            encoding.expired(CURSOR),
        ]

    for sent, events in zip(sends(Chunked(plain)), sends(plain), strict=True):
        assert sent == b"%x\r\n%b\r\n" % (len(events), events)
        assert Chunks().feed(sent) == events


def test_a_planned_end_is_the_last_chunk() -> None:
    chunks = Chunks()
    chunks.feed(Chunked(TextEvents()).rotate(CURSOR, 900))
    assert not chunks.ended
    assert chunks.feed(Chunked(TextEvents()).end) == b""
    assert chunks.ended
    assert TextEvents().end == b"", "the end of the connection"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("\n", "\n"),
        ("a\n", "a\n"),
        ("\r\n\r\n", "\n\n"),
        (" leading", " leading"),
        (": a comment", ": a comment"),
        ("x\nid: 9\nevent: control\nretry: 1\n\ndata: y", "x\nid: 9\nevent: control\nretry: 1\n\ndata: y"),
        ("\0\u2028\x85", "\0\u2028\x85"),
    ],
)
def test_no_data_can_end_its_event_or_name_a_field(data: str, expected: str) -> None:
    assert read(event(CURSOR, data.encode())) == [{"type": "message", "data": expected, "lastEventId": CURSOR}]


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_is_one_event_each(texts: list[str]) -> None:
    stream = TextEvents().messages([message(text) for text in texts], EPOCH, 7)
    assert [e["data"] for e in read(stream)] == [re.sub("\r\n|\r", "\n", text) for text in texts]


def test_text_events_are_named_by_their_type() -> None:
    stream = TextEvents().messages([message("a", "note", 7), message("b", None, 8)], EPOCH, 8)
    assert read(stream) == [
        {"type": "note", "data": "a", "lastEventId": CURSOR},
        {"type": "message", "data": "b", "lastEventId": "abcd1234-000000000000008"},
    ]


def test_json_events_are_unnamed_and_have_the_type_inside() -> None:
    (one,) = read(JsonEvents().messages([message("a\r\nb", "note")], EPOCH, 8))
    assert (one["type"], one["lastEventId"]) == ("message", CURSOR)
    document = json.loads(one["data"])
    assert (document["type"], document["data"], document["id"]) == ("note", "a\r\nb", CURSOR)


def test_pretty_json_survives_as_json() -> None:
    pretty = Message("chat", b'{\r\n  "a": [1,\n 2]\r}', json=True, sequence=7)
    (text,) = read(TextEvents().messages([pretty], EPOCH, 7))
    assert json.loads(text["data"]) == {"a": [1, 2]}
    (envelope,) = read(JsonEvents().messages([pretty], EPOCH, 7))
    assert json.loads(envelope["data"])["data"] == {"a": [1, 2]}


def test_all_control_messages_are_events_with_an_id() -> None:
    encoding = TextEvents()
    said = {
        "open": encoding.open(CURSOR, 15.0, None, 700),
        "ping": encoding.ping(CURSOR),
        "reset": encoding.reset(CURSOR, ["chat"], None),
        "rotate": encoding.rotate(CURSOR, 900),
        "expired": encoding.expired(CURSOR),
    }
    for name, stream in said.items():
        first = read(stream)[0]
        assert (first["type"], first["lastEventId"]) == ("control", CURSOR)
        assert json.loads(first["data"])["control"] == name
        assert not re.search(rb"^:", stream, re.MULTILINE)
    assert b"retry: 700\n" in said["open"]
    assert b"retry: 900\n" in said["rotate"]


def test_a_stream_opens_with_two_events_for_scanners_that_hold_one_back() -> None:
    assert len(read(TextEvents().open(CURSOR, 15.0, None, 700))) == 2
