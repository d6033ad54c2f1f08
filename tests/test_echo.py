"""What a public conformance suite checks of a WebSocket server (after Autobahn's sections 1-7 and 10), on real sockets.

The server is ``tests.echo``: the production code, except that it says back what it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Client, Server, client_frame, running

FIN = 0x80
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GOODBYE = client_frame(FIN | CLOSE, b"\x03\xe8")
GOODBYE_ECHOED = (FIN | CLOSE, b"\x03\xe8")


class EchoServer(Server):
    module = "tests.echo"


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = str(Path(__file__).parent.parent)
    yield from running(tmp_path_factory.mktemp("state"), kind=EchoServer, env={"PYTHONPATH": root})


@pytest.fixture
def client(echo: Server) -> Iterator[Client]:
    with echo.connect() as client:
        assert client.upgrade("/channels/echo") == 101
        yield client


def chopped(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def frames_to_end(client: Client) -> list[tuple[int, bytes]]:
    """All frames that come until the server ends the connection."""
    frames = []
    try:
        while True:
            frames.append(client.frame())
    except EOFError:
        assert client.buffer == b"", "the connection ended inside of a frame"
        return frames


def say(client: Client, *pieces: bytes) -> list[tuple[int, bytes]]:
    """Sends that, says goodbye, and returns all that was answered before the echoed goodbye."""
    for piece in (*pieces, GOODBYE):
        client.send(piece)
    *frames, last = frames_to_end(client)
    assert last == GOODBYE_ECHOED
    return frames


def is_failed(client: Client, code: int, *pieces: bytes) -> list[tuple[int, bytes]]:
    """Sends what must end the connection with that code, and returns what was answered before."""
    for piece in pieces:
        client.send(piece)
    *frames, (first, payload) = frames_to_end(client)
    assert (first, payload[:2]) == (FIN | CLOSE, code.to_bytes(2, "big"))
    return frames


# 1: whole messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, 100_000, 1_000_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_any_size_comes_back(client: Client, opcode: int, size: int) -> None:
    payload = b"*" * size if opcode == TEXT else b"\xfe" * size
    assert say(client, client_frame(FIN | opcode, payload)) == [(FIN | opcode, payload)]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_that_comes_in_small_pieces_comes_back(client: Client, opcode: int) -> None:
    frame = client_frame(FIN | opcode, b"*" * 65536)
    assert say(client, *chopped(frame, 997)) == [(FIN | opcode, b"*" * 65536)]


def test_several_messages_in_one_piece_come_back_one_by_one(client: Client) -> None:
    sent = [(FIN | (TEXT, BINARY)[n % 2], b"%d" % n * n) for n in range(100)]
    assert say(client, b"".join(client_frame(*frame) for frame in sent)) == sent


# 2: pings and pongs


@pytest.mark.parametrize(
    "payload", [b"", b"Hello, world!", bytes(range(0, 250, 2)), b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"]
)
def test_a_ping_comes_back_as_a_pong(client: Client, payload: bytes) -> None:
    assert say(client, client_frame(FIN | PING, payload)) == [(FIN | PONG, payload)]


def test_a_ping_that_comes_byte_by_byte_comes_back(client: Client) -> None:
    frame = client_frame(FIN | PING, b"\xfe" * 125)
    assert say(client, *chopped(frame, 1)) == [(FIN | PONG, b"\xfe" * 125)]


def test_a_ping_over_125_bytes_fails(client: Client) -> None:
    assert is_failed(client, 1002, client_frame(FIN | PING, b"\xfe" * 126)) == []


def test_unasked_pongs_are_ignored_and_pings_behind_them_are_not(client: Client) -> None:
    unasked = client_frame(FIN | PONG) + client_frame(FIN | PONG, b"unasked")
    assert say(client, unasked, client_frame(FIN | PING, b"asked")) == [(FIN | PONG, b"asked")]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_ten_pings_come_back_in_order(client: Client, size: int) -> None:
    pings = b"".join(client_frame(FIN | PING, b"payload-%d" % n) for n in range(10))
    assert say(client, *chopped(pings, size)) == [(FIN | PONG, b"payload-%d" % n) for n in range(10)]


# 3: reserved bits


@pytest.mark.parametrize("bits", [0x40, 0x20, 0x30, 0x10, 0x50, 0x60, 0x70])
@pytest.mark.parametrize("size", [1, 1000])
def test_reserved_bits_fail_and_what_came_before_them_was_heard(client: Client, bits: int, size: int) -> None:
    before = client_frame(FIN | TEXT, b"Hello, world!")
    wrong = client_frame(FIN | bits | TEXT, b"Hello, world!")
    behind = client_frame(FIN | PING)
    client.send(before)
    assert client.frame() == (FIN | TEXT, b"Hello, world!")
    assert is_failed(client, 1002, *chopped(wrong + behind, size)) == []


@pytest.mark.parametrize("opcode", [BINARY, PING, CLOSE])
def test_reserved_bits_fail_in_every_kind_of_frame(client: Client, opcode: int) -> None:
    assert is_failed(client, 1002, client_frame(FIN | 0x40 | opcode)) == []


# 4: reserved opcodes


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"payload"])
def test_a_reserved_opcode_fails_and_what_came_before_it_was_heard(client: Client, opcode: int, payload: bytes) -> None:
    client.send(client_frame(FIN | TEXT, b"Hello, world!"))
    assert client.frame() == (FIN | TEXT, b"Hello, world!")
    assert is_failed(client, 1002, client_frame(FIN | opcode, payload) + client_frame(FIN | PING)) == []


# 5: fragments


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_fragmented_control_frame_fails(client: Client, opcode: int) -> None:
    assert is_failed(client, 1002, client_frame(opcode, b"\x03\xe8frag"), client_frame(FIN | CONT, b"ment")) == []


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_come_back_as_one_message(client: Client, opcode: int, size: int) -> None:
    sent = client_frame(opcode, b"frag") + client_frame(CONT) + client_frame(FIN | CONT, b"ment")
    assert say(client, *chopped(sent, size)) == [(FIN | opcode, b"fragment")]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_ping_between_fragments_is_answered_before_the_message_is_complete(client: Client, size: int) -> None:
    sent = client_frame(TEXT, b"frag") + client_frame(FIN | PING, b"ping") + client_frame(FIN | CONT, b"ment")
    assert say(client, *chopped(sent, size)) == [(FIN | PONG, b"ping"), (FIN | TEXT, b"fragment")]


def test_pings_among_five_fragments_are_answered_at_once(client: Client) -> None:
    client.send(client_frame(TEXT, b"1") + client_frame(CONT, b"2") + client_frame(FIN | PING, b"a"))
    assert client.frame() == (FIN | PONG, b"a")
    client.send(client_frame(CONT, b"3") + client_frame(CONT, b"4") + client_frame(FIN | PING, b"b"))
    assert client.frame() == (FIN | PONG, b"b")
    assert say(client, client_frame(FIN | CONT, b"5")) == [(FIN | TEXT, b"12345")]


@pytest.mark.parametrize("first", [CONT, FIN | CONT])
def test_a_continuation_of_nothing_fails(client: Client, first: int) -> None:
    assert is_failed(client, 1002, client_frame(first, b"fragment"), client_frame(FIN | TEXT, b"text")) == []


def test_a_continuation_behind_a_whole_message_fails(client: Client) -> None:
    client.send(client_frame(FIN | TEXT, b"whole"))
    assert client.frame() == (FIN | TEXT, b"whole")
    assert is_failed(client, 1002, client_frame(FIN | CONT, b"more")) == []


def test_a_message_inside_of_another_fails(client: Client) -> None:
    assert is_failed(client, 1002, client_frame(TEXT, b"frag"), client_frame(FIN | TEXT, b"whole")) == []


# 6: UTF-8

GREEK = "κόσμε".encode()
VALID = [
    "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    GREEK,
    b"\x00",
    b"\xc2\x80",
    b"\xe0\xa0\x80",
    b"\xf0\x90\x80\x80",
    b"\x7f",
    b"\xdf\xbf",
    b"\xef\xbf\xbf",  # not a character, but well encoded
    b"\xf4\x8f\xbf\xbf",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xef\xbb\xbf",
]
INVALID = [
    GREEK + b"\xed\xa0\x80edited",
    b"\xf8\x88\x80\x80\x80",  # five and six bytes
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\x80",  # continuations of nothing
    b"\x80\xbf\x80\xbf",
    b"\xc0 \xc1 ",  # first bytes, and nothing behind them
    b"\xe0\x80",
    b"\xfe",
    b"\xff",
    b"\xc0\xaf",  # overlong
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xed\xa0\x80",  # surrogates
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",  # beyond Unicode
]


@pytest.mark.parametrize("payload", VALID)
def test_utf8_comes_back_however_it_is_cut(client: Client, payload: bytes) -> None:
    whole = client_frame(FIN | TEXT, payload)
    bytewise = client_frame(TEXT) + b"".join(client_frame(CONT, byte) for byte in chopped(payload, 1))
    bytewise += client_frame(FIN | CONT)
    assert say(client, whole, *chopped(whole, 1), bytewise) == [(FIN | TEXT, payload)] * 3


@pytest.mark.parametrize("payload", INVALID)
def test_invalid_utf8_fails(client: Client, payload: bytes) -> None:
    assert is_failed(client, 1007, client_frame(FIN | TEXT, payload)) == []


@pytest.mark.parametrize("payload", INVALID)
def test_invalid_utf8_fails_in_fragments_too(client: Client, payload: bytes) -> None:
    fragments = [client_frame(CONT, byte) for byte in chopped(payload, 1)]
    assert is_failed(client, 1007, client_frame(TEXT), b"".join([*fragments, client_frame(FIN | CONT)])) == []


@pytest.mark.parametrize("payload", [GREEK[:cut] for cut in (1, 3, 5, 7, 9)])
def test_text_must_not_end_inside_of_a_character(client: Client, payload: bytes) -> None:
    assert is_failed(client, 1007, client_frame(FIN | TEXT, payload)) == []


def test_invalid_text_fails_before_the_message_is_complete(client: Client) -> None:
    """Nothing but the server's own decision can end this: the message never ends."""
    assert is_failed(client, 1007, client_frame(TEXT, GREEK), client_frame(CONT, b"\xf4\x90\x80\x80")) == []


@pytest.mark.parametrize("payload", INVALID)
def test_binary_need_not_be_utf8(client: Client, payload: bytes) -> None:
    assert say(client, client_frame(FIN | BINARY, payload)) == [(FIN | BINARY, payload)]


# 7: closing


def test_a_message_before_the_goodbye_comes_back(client: Client) -> None:
    assert say(client, client_frame(FIN | TEXT, b"Hello") + GOODBYE) == [(FIN | TEXT, b"Hello")]


@pytest.mark.parametrize(
    "behind", [GOODBYE, client_frame(FIN | PING), client_frame(FIN | TEXT, b"text"), b"\xff" * 100_000]
)
def test_nothing_behind_the_goodbye_is_answered(client: Client, behind: bytes) -> None:
    client.send(GOODBYE + behind)
    assert frames_to_end(client) == [GOODBYE_ECHOED]


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8Hello, world!", b"\x03\xe8" + b"*" * 123])
def test_a_goodbye_comes_back_as_it_is(client: Client, payload: bytes) -> None:
    client.send(client_frame(FIN | CLOSE, payload))
    assert frames_to_end(client) == [(FIN | CLOSE, payload)]


@pytest.mark.parametrize("payload", [b"*", b"\x03\xe8" + b"*" * 124])
def test_a_goodbye_of_a_wrong_size_fails(client: Client, payload: bytes) -> None:
    assert is_failed(client, 1002, client_frame(FIN | CLOSE, payload)) == []


def test_a_reason_that_is_not_utf8_fails(client: Client) -> None:
    assert is_failed(client, 1007, client_frame(FIN | CLOSE, b"\x03\xe8" + INVALID[0])) == []


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_valid_close_code_comes_back(client: Client, code: int) -> None:
    client.send(client_frame(FIN | CLOSE, code.to_bytes(2, "big")))
    assert frames_to_end(client) == [(FIN | CLOSE, code.to_bytes(2, "big"))]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_an_invalid_close_code_fails(client: Client, code: int) -> None:
    assert is_failed(client, 1002, client_frame(FIN | CLOSE, code.to_bytes(2, "big"))) == []


def test_a_frame_without_a_mask_fails(client: Client) -> None:
    assert is_failed(client, 1002, client_frame(FIN | TEXT, b"Hello", mask=b"")) == []


def test_the_last_words_reach_a_client_that_is_still_sending(client: Client) -> None:
    """The kernel would take them back if the server closed its socket with input unread."""
    wrong = client_frame(FIN | 0x40 | TEXT, b"*" * 5_000_000)
    assert is_failed(client, 1002, wrong, b"\x00" * 5_000_000) == []


# 10: automatic fragmentation


def test_a_big_message_in_many_fragments_comes_back(client: Client) -> None:
    first, *middle, last = chopped(b"*" * 65536, 1300)
    frames = [client_frame(TEXT, first), *(client_frame(CONT, part) for part in middle), client_frame(FIN | CONT, last)]
    assert say(client, *frames) == [(FIN | TEXT, b"*" * 65536)]
