"""WebSocket in bytes (RFC 6455): the handshake, our frames, and what a client may and may not send."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.protocol import CLIENT, Protocol

from pushcompat.errors import RequestError, UnknownVersion, UpgradeRequired
from pushcompat.wire.request import Request, parse_head
from pushcompat.wire.websocket import PING as OUR_PING
from pushcompat.wire.websocket import Input, handshake, is_pong, pong_frame, text_frame

from ..harness import client_frame

FIN = 0x80
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LIMIT = 70_000


# The handshake

HANDSHAKE = {
    "Host": "test",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def asks(line: str = "GET /channels/chat HTTP/1.1", **changed: str | None) -> Request:
    headers = {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in changed.items()}}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return parse_head("\r\n".join([*lines, "", ""]).encode())


def test_the_handshake_is_accepted_as_the_standard_example_shows() -> None:
    head = handshake(asks())
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert head.endswith(b"\r\n\r\n")
    assert b"Sec-WebSocket-Extensions" not in head


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "dGhlIHNhbXBsZSBub25jZQ",  # without its padding
        "dGhlIHNhbXBsZSBub25jZSE=",  # 17 bytes
        "dGhlIHNhbXBsZSBub25j====",  # 15 bytes
        "dGhlIHNhbXBsZSBub25j!Q==",  # not base64
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_refused(key: str | None) -> None:
    with pytest.raises(UpgradeRequired, match="Sec-WebSocket-Key"):
        handshake(asks(Sec_WebSocket_Key=key))


@pytest.mark.parametrize("version", [None, "", "8", "12", "14", "13, 8", "013"])
def test_another_version_is_refused_with_the_one_we_speak(version: str | None) -> None:
    with pytest.raises(UnknownVersion) as refused:
        handshake(asks(Sec_WebSocket_Version=version))
    assert ("Sec-WebSocket-Version", "13") in refused.value.headers


@pytest.mark.parametrize("line", ["POST /channels/chat HTTP/1.1", "GET /channels/chat HTTP/1.0"])
def test_a_handshake_is_a_get_over_http_1_1(line: str) -> None:
    with pytest.raises(RequestError):
        handshake(asks(line))


# Our frames


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_our_text_frames_say_their_length_in_the_fewest_bytes(size: int, header: bytes) -> None:
    payload = b"x" * size
    assert text_frame(payload) == header + payload


# What a client sends


@dataclass
class Read:
    """All that came of some input."""

    frames: list[tuple[int, bool, bytes]] = field(default_factory=list)
    replies: bytes = b""
    closing: bool = False
    finished: bool = False
    quiet: bool = False
    close_code: int | None = None


def read(pieces: Iterable[bytes], reader: Input | None = None) -> Read:
    reader = reader or Input(LIMIT)
    result = Read()
    for piece in pieces:
        result.frames += [(int(f.opcode), f.fin, bytes(f.data)) for f in reader.read(piece)]
        result.replies += reader.replies()
    result.closing, result.finished, result.quiet = reader.closing, reader.finished, reader.quiet
    result.close_code = reader.close_code
    return result


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """A client's."""
    return client_frame(FIN | CLOSE, code.to_bytes(2, "big") + reason)


def closed_with(replies: bytes) -> int:
    """The code of the Close at the beginning of what we answered."""
    assert replies[0] == FIN | CLOSE
    assert replies[1] >= 2
    return int.from_bytes(replies[2:4], "big")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_whole_frame_of_any_length_is_read(opcode: int, size: int) -> None:
    result = read([client_frame(FIN | opcode, b"x" * size)])
    assert result == Read([(opcode, True, b"x" * size)], quiet=True)


def test_the_mask_is_taken_off() -> None:
    frame = client_frame(FIN | TEXT, b"Hello", mask=b"\x37\xfa\x21\x3d")
    assert frame == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"  # RFC 6455 §5.7
    assert read([frame]).frames == [(TEXT, True, b"Hello")]


def test_fragments_come_with_what_they_are_fragments_of() -> None:
    fragments = [client_frame(TEXT, b"a"), client_frame(CONT, b"b"), client_frame(FIN | CONT, b"c")]
    expected = [(TEXT, False, b"a"), (CONT, False, b"b"), (CONT, True, b"c")]
    assert read(fragments).frames == expected
    assert read([b"".join(fragments)]).frames == expected


def test_a_reader_is_quiet_only_between_messages() -> None:
    """Whoever is quiet may be thrown away; bytes of a frame, and fragments of a message, must not be lost with it."""
    reader = Input(LIMIT)
    frames = [client_frame(TEXT, b"He"), client_frame(FIN | PING, b"!"), client_frame(FIN | CONT, b"y" * 300)]
    data = b"".join(frames)
    for index in range(len(data) - 1):
        reader.read(data[index : index + 1])
        assert not reader.quiet, f"quiet after {index + 1} of {len(data)} bytes"
    reader.read(data[-1:])
    assert reader.quiet


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_reader_is_not_quiet_inside_of_a_single_frame(size: int) -> None:
    frame = client_frame(FIN | BINARY, b"x" * size)
    header = len(frame) - size
    for cut in {1, 2, 3, header - 4, header - 1, header, len(frame) - 1} - {len(frame)}:
        reader = Input(LIMIT)
        assert reader.read(frame[:cut]) == []
        assert not reader.quiet, f"quiet after {cut} of {len(frame)} bytes"
        assert [bytes(f.data) for f in reader.read(frame[cut:])] == [b"x" * size]
        assert reader.quiet


def test_control_frames_may_come_between_fragments() -> None:
    data = client_frame(TEXT, b"a") + client_frame(FIN | PING, b"1") + client_frame(FIN | PONG, b"2")
    data += client_frame(CONT, b"b") + client_frame(FIN | PING, b"3") + client_frame(FIN | CONT, b"c")
    for pieces in ([data], bytewise(data)):
        result = read(pieces)
        assert [payload for _, _, payload in result.frames] == [b"a", b"b", b"c"]
        assert result.replies == b"\x8a\x011\x8a\x013"
        assert result.quiet


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff\xfe", b"x" * 125])
def test_a_ping_is_answered_with_its_own_payload(payload: bytes) -> None:
    assert read([client_frame(FIN | PING, payload)]).replies == bytes([0x8A, len(payload)]) + payload


def test_a_pong_that_nobody_asked_for_is_ignored() -> None:
    assert read([client_frame(FIN | PONG, b"hello")]) == Read(quiet=True)


SIZED = client_frame(FIN | TEXT, b"x" * 200)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(client_frame(FIN | TEXT, b"hello", mask=b""), id="unmasked text"),
        pytest.param(client_frame(FIN | TEXT, b"", mask=b""), id="unmasked and empty"),
        pytest.param(client_frame(FIN | PING, b"hello", mask=b""), id="unmasked ping"),
        *[
            pytest.param(client_frame(FIN | bits | opcode), id=f"reserved bits {bits:#x} with opcode {opcode}")
            for bits in range(0x10, 0x80, 0x10)
            for opcode in (TEXT, BINARY, CLOSE, PING)
        ],
        *[
            pytest.param(client_frame(first | opcode), id=f"reserved opcode {opcode} with {first:#x}")
            for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
            for first in (FIN, 0)
        ],
        *[pytest.param(client_frame(opcode, b""), id=f"fragmented {opcode}") for opcode in (CLOSE, PING, PONG)],
        *[
            pytest.param(client_frame(FIN | opcode, b"\x03\xe8" + b"x" * 124), id=f"126 bytes in {opcode}")
            for opcode in (CLOSE, PING, PONG)
        ],
        pytest.param(client_frame(FIN | CONT, b"x"), id="a continuation of nothing"),
        pytest.param(client_frame(CONT, b"x"), id="an unfinished continuation of nothing"),
        pytest.param(client_frame(TEXT, b"x") + client_frame(FIN | TEXT, b"y"), id="text inside of a message"),
        pytest.param(client_frame(BINARY) + client_frame(FIN | BINARY), id="binary inside of a message"),
        pytest.param(
            client_frame(TEXT) + client_frame(FIN | CONT) + client_frame(FIN | CONT), id="a continuation too many"
        ),
        pytest.param(client_frame(FIN | CLOSE, b"\x03"), id="half a close code"),
    ],
)
def test_protocol_errors_are_closed_with_1002(data: bytes) -> None:
    for pieces in ([data], bytewise(data), [data + SIZED]):
        result = read(pieces)
        assert closed_with(result.replies) == 1002
        assert result.close_code == 1002
        assert (result.closing, result.finished, result.quiet) == (True, True, False)


@pytest.mark.parametrize("first", [FIN | TEXT, FIN | PING])
def test_the_header_alone_is_enough_to_break_the_protocol(first: int) -> None:
    assert closed_with(read([bytes([first, 0x05])]).replies) == 1002


def test_input_after_a_failure_is_not_read() -> None:
    data = client_frame(FIN | TEXT, b"before") + client_frame(FIN | TEXT, b"\xff") + client_frame(FIN | TEXT, b"after")
    for pieces in ([data], bytewise(data)):
        result = read([*pieces, client_frame(FIN | TEXT, b"later")])
        assert result.frames == [(TEXT, True, b"before")]
        assert closed_with(result.replies) == 1007


# UTF-8

NOT_UTF8 = [
    b"\xff",
    b"\xc0\xaf",  # an overlong slash
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",  # Autobahn's favourite
    b"text that ends \xe2\x82",  # in the middle of a character
]


@pytest.mark.parametrize("payload", NOT_UTF8)
def test_text_that_is_not_utf8_is_closed_with_1007(payload: bytes) -> None:
    frame = client_frame(FIN | TEXT, payload)
    fragments = [client_frame(TEXT)] + [client_frame(CONT, byte) for byte in bytewise(payload)]
    for pieces in ([frame], bytewise(frame), [*fragments, client_frame(FIN | CONT)]):
        result = read(pieces)
        assert closed_with(result.replies) == 1007
        assert result.finished


def test_a_character_may_be_split_over_fragments() -> None:
    fragments = [client_frame(TEXT, b"\xe2"), client_frame(CONT), client_frame(CONT, b"\x82")]
    assert read([*fragments, client_frame(FIN | CONT, b"\xac")]).quiet


def test_each_message_is_judged_for_itself() -> None:
    binary = client_frame(BINARY, b"\xff") + client_frame(FIN | CONT, b"\xfe")
    text = client_frame(TEXT, b"\xe2") + client_frame(FIN | CONT, b"\x82\xac")
    assert read([binary + text + binary + client_frame(FIN | TEXT, b"\xc3\xa9") + binary]).quiet


def test_text_that_can_not_become_utf8_any_more_is_not_waited_for() -> None:
    """The first byte alone may be the start of a character; with the second it is certain that it is not."""
    reader = Input(LIMIT)
    assert not read([client_frame(TEXT, b"ok \xf4")], reader).closing
    result = read([client_frame(CONT, b"\x90")], reader)
    assert closed_with(result.replies) == 1007
    assert result.close_code == 1007


# Size


def test_a_message_over_the_limit_is_closed_with_1009_before_it_came() -> None:
    frame = client_frame(FIN | BINARY, b"x" * (LIMIT + 1))
    result = read([frame[:10]])
    assert closed_with(result.replies) == 1009
    assert result.finished


def test_fragments_count_together() -> None:
    half = LIMIT // 2
    start, rest = client_frame(BINARY, b"x" * half), b"x" * (LIMIT - half)
    assert read([start, client_frame(FIN | CONT, rest)]).quiet
    assert closed_with(read([start, client_frame(CONT, rest), client_frame(CONT, b"x")]).replies) == 1009


def test_a_length_with_its_highest_bit_set_is_too_much() -> None:
    assert closed_with(read([b"\x82\xff" + b"\xff" * 8]).replies) == 1009


# Closing


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
)
def test_a_close_is_echoed_with_its_code_and_reason(code: int) -> None:
    for pieces in ([close_frame(code, b"so long")], bytewise(close_frame(code, b"so long"))):
        result = read(pieces)
        assert result.replies == b"\x88\x09" + code.to_bytes(2, "big") + b"so long"
        assert (result.closing, result.finished, result.close_code) == (True, True, code)


def test_a_close_without_a_code_is_echoed_without_one() -> None:
    result = read([client_frame(FIN | CLOSE)])
    assert result.replies == b"\x88\x00"
    assert result.close_code == 1005  # RFC 6455 §7.1.5: what “no code” is called


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_code_that_nobody_may_send_is_a_breach_of_the_protocol(code: int) -> None:
    assert closed_with(read([close_frame(code)]).replies) == 1002


def test_a_reason_may_be_as_long_as_a_control_frame_allows() -> None:
    assert read([close_frame(1000, b"x" * 123)]).replies == b"\x88\x7d\x03\xe8" + b"x" * 123


@pytest.mark.parametrize("reason", NOT_UTF8)
def test_a_reason_that_is_not_utf8_is_closed_with_1007(reason: bytes) -> None:
    assert closed_with(read([close_frame(1000, reason)]).replies) == 1007


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_close_between_fragments_is_echoed_like_any_other(opcode: int) -> None:
    fragments = client_frame(opcode, b"to be") + client_frame(CONT, b" contin")
    sent = fragments + close_frame(4000, b"so long")
    for pieces in ([sent], bytewise(sent), [fragments, sent[len(fragments) :]]):
        for result in (read(pieces), ignored(pieces)):
            assert result.replies == b"\x88\x09" + (4000).to_bytes(2, "big") + b"so long"
            assert (result.closing, result.finished, result.close_code) == (True, True, 4000)


def test_a_close_between_fragments_answers_ours() -> None:
    reader = Input(LIMIT)
    reader.receive(client_frame(TEXT, b"to be continu"))
    reader.close(1012, "restart")
    assert reader.replies() == b"\x88\x09\x03\xf4restart"
    reader.receive(close_frame(1012))
    assert (reader.replies(), reader.finished, reader.close_code) == (b"", True, 1012)


def test_input_after_a_close_is_not_read() -> None:
    result = read([close_frame(1000) + client_frame(FIN | TEXT, b"x") + client_frame(FIN | PING, b"y"), b"\xff" * 99])
    assert result == Read([], b"\x88\x02\x03\xe8", closing=True, finished=True, close_code=1000)


def test_our_close_is_said_once_and_waits_for_the_clients() -> None:
    reader = Input(LIMIT)
    reader.close(1012, "restart")
    reader.close(1000)
    assert reader.replies() == b"\x88\x09\x03\xf4restart"
    assert (reader.closing, reader.finished, reader.quiet) == (True, False, False)
    assert read([client_frame(FIN | TEXT, b"still there")], reader).frames == [(TEXT, True, b"still there")]
    assert not reader.finished
    result = read([close_frame(1012)], reader)
    assert (result.replies, result.finished, result.close_code) == (b"", True, 1012)


# Any splitting

payloads = st.one_of(st.binary(max_size=20), st.sampled_from([b"x" * size for size in (125, 126, 300, 65536)]))
masks = st.binary(min_size=4, max_size=4)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message in one frame or in several, with control frames in between."""
    text = draw(st.booleans())
    payload = draw(st.text(max_size=20)).encode() if text else draw(payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    edges = [0, *cuts, len(payload)]
    data = b""
    for index, (start, end) in enumerate(pairwise(edges)):
        if index:
            data += b"".join(draw(st.lists(controls, max_size=2)))
        opcode = CONT if index else TEXT if text else BINARY
        final = FIN if index == len(cuts) else 0
        data += client_frame(final | opcode, payload[start:end], draw(masks))
    return data


controls = st.builds(
    client_frame, st.sampled_from([FIN | PING, FIN | PONG]), st.binary(max_size=125) | st.just(b"x" * 125), masks
)
closes = st.builds(
    lambda code, reason: close_frame(code, reason.encode()), st.integers(3000, 4999), st.text(max_size=30)
)
conversations = st.lists(messages() | controls, max_size=6).map(b"".join)


@given(conversations, st.just(b"") | closes, st.data())
def test_any_splitting_of_a_valid_conversation_reads_the_same(talk: bytes, end: bytes, data: st.DataObject) -> None:
    sent = talk + end
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    pieces = [sent[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True) if start < stop]
    whole = read([sent])
    assert whole.quiet == (not end)
    assert read(pieces) == whole
    assert read(bytewise(sent) if len(sent) < 3000 else pieces) == whole


@given(conversations, st.data())
def test_readers_that_are_thrown_away_when_quiet_lose_nothing(talk: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(talk)), max_size=12)))
    reader, found = Input(LIMIT), Read(quiet=True)
    for start, stop in zip([0, *cuts], [*cuts, len(talk)], strict=True):
        result = read([talk[start:stop]], reader)
        found.frames += result.frames
        found.replies += result.replies
        if reader.quiet:
            reader = Input(LIMIT)
    assert found == read([talk])


# What is skipped


def ignored(pieces: Iterable[bytes], reader: Input | None = None) -> Read:
    """What the hub makes of some input: readers are dropped when quiet."""
    reader = reader or Input(LIMIT)
    result = Read(quiet=True)
    for piece in pieces:
        reader.receive(piece)
        result.replies += reader.replies()
        result.closing, result.finished, result.quiet = reader.closing, reader.finished, reader.quiet
        result.close_code = reader.close_code
        if reader.quiet:
            reader = Input(LIMIT)
    return result


def without_pongs(replies: bytes) -> bytes:
    while replies and replies[0] == FIN | PONG:
        replies = replies[2 + replies[1] :]
    return replies


def outcome(result: Read) -> tuple[object, ...]:
    return without_pongs(result.replies), result.closing, result.finished, result.quiet, result.close_code


breaches = st.sampled_from([
    client_frame(FIN | TEXT, b"\xff"), client_frame(FIN | TEXT, b"x", mask=b""), client_frame(FIN | 3),
    client_frame(FIN | CONT, b"x"), client_frame(TEXT, b"a") + client_frame(FIN | TEXT, b"b"),
])  # fmt: skip


@given(conversations, st.just(b"") | closes | breaches, st.data())
def test_skipping_frames_changes_only_the_number_of_pongs(talk: bytes, end: bytes, data: st.DataObject) -> None:
    sent = talk + end
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    pieces = [sent[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True) if start < stop]
    expected = outcome(read([sent]) if sent else Read(quiet=True))
    assert outcome(ignored([sent] if sent else [])) == expected
    assert outcome(ignored(pieces)) == expected
    assert outcome(ignored(bytewise(sent) if len(sent) < 3000 else pieces)) == expected


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125])
@pytest.mark.parametrize("before", [b"", client_frame(TEXT, b"a")])
def test_only_the_latest_ping_of_one_read_is_answered(payload: bytes, before: bytes) -> None:
    pings = [client_frame(FIN | PING, b"%d" % n) for n in range(20)] + [client_frame(FIN | PING)] * 20
    others = client_frame(FIN | PONG) + client_frame(FIN | PONG, b"x")
    latest = client_frame(FIN | PING, payload)
    reader = Input(LIMIT)
    reader.receive(before)
    reader.receive(b"".join(pings) + latest + others)
    assert reader.replies() == pong_frame(payload)
    assert reader.replies() == b""
    assert reader.quiet is (not before)


def test_pings_are_not_answered_again_when_the_rest_of_a_frame_comes() -> None:
    reader = Input(LIMIT)
    reader.receive(client_frame(FIN | PING, b"1") + client_frame(FIN | PING, b"2")[:6])
    assert reader.replies() == pong_frame(b"1")
    assert not reader.quiet
    reader.receive(client_frame(FIN | PING, b"2")[6:])
    assert reader.replies() == pong_frame(b"2")
    assert reader.quiet


@pytest.mark.parametrize("last", [close_frame(1000), client_frame(FIN | TEXT, b"\xff")])
def test_no_ping_is_answered_once_the_connection_is_closed(last: bytes) -> None:
    reader = Input(LIMIT)
    reader.receive(last)
    assert reader.replies()[0] == FIN | CLOSE
    reader.receive(client_frame(FIN | PING, b"still there?"))
    assert reader.replies() == b""


def test_a_small_limit_holds_for_what_is_skipped_too() -> None:
    reader = Input(10)
    reader.receive(client_frame(FIN | TEXT, b"x" * 10))
    assert not reader.closing
    reader.receive(client_frame(FIN | TEXT, b"x" * 11))
    assert closed_with(reader.replies()) == 1009


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("first", [0, FIN, FIN | 0x40])
@pytest.mark.parametrize("size", [0, 1, 125])
@pytest.mark.parametrize("masked", [True, False])
def test_only_the_answer_to_our_ping_passes_for_it(opcode: int, first: int, size: int, masked: bool) -> None:
    frame = client_frame(first | opcode, b"x" * size, b"mask" if masked else b"")
    assert is_pong(frame) is ((first, opcode, size, masked) == (FIN, PONG, 0, True))
    assert not is_pong(frame[:5])
    assert not is_pong(frame + client_frame(FIN | PONG, b""))


def test_the_answer_to_our_ping_is_an_empty_pong() -> None:
    client = Protocol(CLIENT)
    client.receive_data(OUR_PING)
    assert is_pong(b"".join(client.data_to_send()))
