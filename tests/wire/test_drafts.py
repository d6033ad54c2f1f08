"""What a body may be. Over HTTP, with the log behind it: tests/hub/test_publishing.py."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.errors import BadRequest, PayloadTooLarge, UnsupportedMedia
from pushcompat.message import SIGNAL, SIGNAL_KEY, Message
from pushcompat.wire import drafts, envelope
from pushcompat.wire.drafts import MAX_LEVELS

JSON = "application/json"
LIMIT = 100


def batch(items: Any, media_type: str = JSON, **params: str) -> list[Message]:
    body = items if isinstance(items, bytes) else json.dumps(items).encode()
    return drafts.batch(body, media_type, params, max_messages=3, message_bytes=LIMIT)[0]


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * levels + (b"" if opening == b"[" else b"1") + closing * levels


# Media types


@pytest.mark.parametrize(
    ("content_type", "content_encoding", "expected"),
    [
        (b"", b"", ""),
        (b"application/json", b"", JSON),
        (b"Application/JSON ; charset=UTF-8", b"", JSON),
        (b"text/html; charset=utf8", b"", "text/html"),
        (b"application/x-www-form-urlencoded", b"", "application/x-www-form-urlencoded"),
        (b"text/plain", b"identity", "text/plain"),
        (b"text/plain", b"Identity", "text/plain"),
        (b"text/plain; charset=US-ASCII", b"", "text/plain"),
        (b"application/octet-stream", b"", "application/octet-stream"),
        (b"application/cloudevents+json; charset=utf-8", b"", JSON),
        (b"application/vnd.github.v3+json", b"", JSON),
        (b"text/json", b"", JSON),
    ],
)
def test_json_and_text_are_taken(content_type: bytes, content_encoding: bytes, expected: str) -> None:
    assert drafts.media_type(content_type, content_encoding) == expected


@pytest.mark.parametrize(
    ("content_type", "content_encoding", "said"),
    [
        (b"application/jsonx", b"", "application/jsonx"),
        (b"image/" + b"x" * 999, b"", "x[^ ]*'; use application/json or text/plain"),
        (b"text/plain; charset=latin-1", b"", "use utf-8"),
        (b"text/plain", b"gzip", "uncompressed"),
    ],
)
def test_other_bodies_are_refused(content_type: bytes, content_encoding: bytes, said: str) -> None:
    with pytest.raises(UnsupportedMedia, match=said) as refused:
        drafts.media_type(content_type, content_encoding)
    assert len(refused.value.detail) < 200
    assert dict(refused.value.headers) == {"Accept": "application/json, text/plain", "Accept-Encoding": "identity"}


# Payloads


@pytest.mark.parametrize("text", [b"", b"hello", b" spaces ", "ü€😀".encode(), b"\0", b"{"])
def test_text_is_kept_as_it_is(text: bytes) -> None:
    assert drafts.payload(text, is_json=False) == text


@pytest.mark.parametrize("document", [b"1", b'{"b":1,"a":2,"b":3}', b"1e999", b"-0.10", b'"\\u0000"', b"[1, 2,\n 3]"])
@pytest.mark.parametrize("around", [b"", b" \r\n\t"])
def test_json_keeps_its_own_bytes_but_for_the_white_space_around_it(document: bytes, around: bytes) -> None:
    assert drafts.payload(around + document + around, is_json=True) == document


@pytest.mark.parametrize("body", [b"\xff", b'"\xff"', b'{"\xed\xa0\x80":1}', b'"\xc3"'])
@pytest.mark.parametrize("is_json", [True, False])
def test_invalid_utf8_is_refused(body: bytes, is_json: bool) -> None:
    with pytest.raises(BadRequest, match="not UTF-8 at byte"):
        drafts.payload(body, is_json)


@pytest.mark.parametrize(
    "body", [b"{", b"hello", b"1 2", b" ", b"NaN", b"01", b"[1,]", b'"\\ud800"', b"\x0c1", b'"\n"']
)
def test_invalid_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"invalid JSON: .*; to publish text use Content-Type: text/plain"):
        drafts.payload(body, is_json=True)


# Levels


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_document_may_have_128_levels_and_no_more(opening: bytes, closing: bytes) -> None:
    document = nested(MAX_LEVELS, opening, closing)
    assert MAX_LEVELS == 128
    assert drafts.payload(document, is_json=True) == document
    for levels in (MAX_LEVELS + 1, 50_000):
        with pytest.raises(BadRequest, match="nested too deeply; at most 128 levels"):
            drafts.payload(nested(levels, opening, closing), is_json=True)


def test_brackets_without_an_end_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(BadRequest, match="nested too deeply"):
        drafts.payload(b"[" * 60_000, is_json=True)


@pytest.mark.parametrize(
    "text", ["[" * 300, "[{" * 300, '"[' * 300, "\\[" * 300, '\\"[' * 300, '\\\\"[{' * 300, "]" * 300 + "[" * 300]
)
def test_brackets_in_strings_are_no_levels(text: str) -> None:
    for document in (text, [text, text], {text: [text]}, [[text, "\\", [text], '"'], "[" * 300]):
        body = json.dumps(document).encode()
        assert drafts.payload(body, is_json=True) == body


def test_brackets_side_by_side_are_no_levels() -> None:
    body = json.dumps([[1], {"a": []}] * 5000).encode()
    assert drafts.payload(body, is_json=True) == body


texts = st.text(alphabet='[]{}"\\ax,: é', max_size=8)
documents = st.recursive(texts | st.none(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner))


def levels(document: Any) -> int:
    if not isinstance(document, list | dict):
        return 0
    inner = document.values() if isinstance(document, dict) else document
    return 1 + max(map(levels, inner), default=0)


@given(documents, st.booleans())
def test_levels_are_counted_exactly(document: Any, ascii_only: bool) -> None:
    document = [document, "[" * (MAX_LEVELS + 1)]  # enough of them that levels are counted
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    depth = levels(document)
    around = MAX_LEVELS - depth
    whole = b"[" * around + body + b"]" * around
    assert drafts.payload(whole, is_json=True) == whole
    with pytest.raises(BadRequest, match="nested too deeply"):
        drafts.payload(b"[" + whole + b"]", is_json=True)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_the_deepest_document_can_be_read_by_subscribers(opening: bytes, closing: bytes) -> None:
    deepest = drafts.payload(nested(MAX_LEVELS, opening, closing), is_json=True)
    said = envelope.envelope(Message("chat", deepest, json=True, sequence=7), "abcd1234")
    poll = b'{"cursor":"abcd1234-000000000000007","messages":[%b]}' % said
    assert json.loads(said)["data"] == json.loads(deepest)
    assert json.loads(poll)["messages"][0]["data"] == json.loads(deepest)


# One message


def test_each_channel_gets_the_message() -> None:
    made = drafts.single(b"hi", False, ["a", "b"], {"key": "k", "type": "note", "ttl": "2.5", "other": "x"})
    assert [(m.channel, m.data, m.json, m.key, m.type, m.ttl_s) for m in made] == [
        (name, b"hi", False, "k", "note", 2.5) for name in ("a", "b")
    ]


@pytest.mark.parametrize("is_json", [True, False])
def test_an_empty_body_is_the_signal_with_a_key_of_its_own(is_json: bool) -> None:
    (signal,) = drafts.single(b"", is_json, ["a"], {})
    assert (signal.data, signal.json, signal.key) == (SIGNAL, False, SIGNAL_KEY)
    (named,) = drafts.single(b"", is_json, ["a"], {"key": "k"})
    assert (named.data, named.key) == (SIGNAL, "k")


@pytest.mark.parametrize("params", [{"ttl": "0"}, {"ttl": "-1"}, {"ttl": "soon"}, {"key": "a b"}, {"type": "control"}])
def test_a_message_with_an_invalid_parameter_is_refused(params: dict[str, str]) -> None:
    (name,) = params
    with pytest.raises(BadRequest, match=name):
        drafts.single(b"x", False, ["a"], params)


# Batches


def test_a_batch_is_one_draft_for_each_of_its_messages() -> None:
    made = batch([{"channel": "a", "data": "text"}, {"channel": "b", "data": {"n": 1}, "key": "k"}, {"channel": "c"}])
    assert [(m.channel, m.data, m.json, m.key) for m in made] == [
        ("a", b"text", False, None), ("b", b'{"n": 1}', True, "k"), ("c", SIGNAL, False, SIGNAL_KEY),
    ]  # fmt: skip


def test_a_message_of_a_batch_may_be_as_large_as_the_limit() -> None:
    for data, size in (("x" * LIMIT, LIMIT), ("é" * (LIMIT // 2), LIMIT), (["x" * (LIMIT - 4)], LIMIT)):
        assert len(batch([{"channel": "a", "data": data}])[0].data) == size
    for data in ("x" * (LIMIT + 1), ["x" * (LIMIT - 3)]):
        with pytest.raises(PayloadTooLarge) as refused:
            batch([{"channel": "a"}, {"channel": "a", "data": data}])
        assert re.search(f"message 1 of the batch: .*{LIMIT} bytes", refused.value.detail)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "1 to 3 messages, not 0"),
        ([{"channel": "a"}] * 4, "1 to 3 messages, not 4"),
        ([{"channel": "a b"}], "message 0 of the batch: invalid channel name"),
        ([{"channel": "a", "ttl": 0}], "message 0 of the batch: ttl"),
        ([{"channel": "a", "other": 1}], "invalid batch: .*other"),
        (b'[{"channel":"a"}', "invalid JSON"),
        (b'[{"channel":"\xff"}]', "not UTF-8 at byte 13"),
    ],
)
def test_a_batch_that_is_not_in_order_is_refused(items: Any, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        batch(items)
    assert re.search(said, refused.value.detail)


def test_items_of_a_batch_may_have_ids() -> None:
    def ids(*items: dict[str, str]) -> list[str | None] | None:
        return drafts.batch(json.dumps(items).encode(), JSON, {}, max_messages=3, message_bytes=LIMIT)[1]

    assert ids({"channel": "a"}, {"channel": "a"}) is None
    assert ids({"channel": "a", "id": "x" * 256}, {"channel": "a"}) == ["x" * 256, None]
    for wrong in ("", "x" * 257, "ü", "a\n"):
        with pytest.raises(BadRequest) as refused:
            ids({"channel": "a"}, {"channel": "a", "id": wrong})
        assert refused.value.detail == "message 1 of the batch: an id has 1 to 256 printable ASCII characters"


def test_data_in_a_batch_may_have_as_many_levels_as_elsewhere() -> None:
    def of(count: int) -> bytes:
        return b'[{"channel":"a"},{"channel":"a","data":%b}]' % nested(count)

    made, _ = drafts.batch(of(MAX_LEVELS), JSON, {}, max_messages=3, message_bytes=9999)
    assert made[1].data == nested(MAX_LEVELS)
    with pytest.raises(BadRequest, match="nested too deeply; at most 128 levels"):
        drafts.batch(of(MAX_LEVELS + 1), JSON, {}, max_messages=3, message_bytes=9999)


def test_a_batch_is_json_and_its_parameters_are_in_its_messages() -> None:
    with pytest.raises(UnsupportedMedia, match="JSON array"):
        batch([{"channel": "a"}], "text/plain")
    for name in ("key", "type", "ttl"):
        with pytest.raises(BadRequest, match="per message"):
            batch([{"channel": "a"}], **{name: "1"})
