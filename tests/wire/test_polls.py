"""A repeated poll is recognised only where nothing but its cursor could have changed its meaning."""

from __future__ import annotations

import pytest

from pushcompat.wire.negotiation import requested_cursor
from pushcompat.wire.polls import PollTemplate, template
from pushcompat.wire.request import parse_head

EPOCH = "aaaaaaaa"
HEAD = "GET /channels/a?{} HTTP/1.1\r\nHost: h\r\n{}\r\n"


def cursor(sequence: int, epoch: str = EPOCH) -> str:
    return f"{epoch}-{sequence:015d}"


def poll(query: str, lines: str = "", version: str = "1.1") -> bytes:
    return HEAD.format(query, lines).replace("HTTP/1.1", f"HTTP/{version}").encode()


def of(head: bytes) -> PollTemplate | None:
    request = parse_head(head)
    return template(head, request, requested_cursor(request, EPOCH), 25, EPOCH)


def made(head: bytes) -> PollTemplate:
    found = of(head)
    assert found is not None
    return found


@pytest.mark.parametrize("query", ["cursor={}", "wait=20&cursor={}", "cursor={}&wait=20", "a=b&cursor={}&client=x"])
def test_the_same_poll_from_another_cursor_is_recognised(query: str) -> None:
    known = made(poll(query.format(cursor(7))))
    for sequence in (7, 8, 8, 3):
        assert known.match(poll(query.format(cursor(sequence))))
        assert (known.cursor, known.hold) == (sequence, 25)


@pytest.mark.parametrize(
    "other",
    [
        poll(f"cursor={cursor(8)}&wait=1"),
        poll(f"wait=1&cursor={cursor(8)}"),
        poll(f"cursor={cursor(8)}", "X: y\r\n"),
        poll(f"cursor={cursor(8)}").replace(b"channels/a", b"channels/b"),
        poll(f"cursor={cursor(8)}").replace(b"GET", b"PUT"),
        poll(f"cursor={cursor(8)}", version="1.0"),
        poll(f"cursor={cursor(8)}").replace(b"cursor", b"CURSOR"),
        poll(f"cursor={cursor(8)}") + b"GET",
        poll(f"cursor={cursor(8)}")[:-1],
        poll(f"cursor={cursor(8)}")[1:],
        poll(f"cursor={cursor(8, 'bbbbbbbb')}"),
        poll("cursor=earliest"),
        poll("cursor="),
        poll(f"cursor={cursor(8)[:-1]}"),
        poll(f"cursor={cursor(8)}0"),
        poll(f"cursor={cursor(8)[:-1]}x"),
        poll(f"cursor={cursor(8)}").replace(b"000000008", b"\xc2\xb2000000"),
        b"",
    ],
)
def test_any_other_request_is_not(other: bytes) -> None:
    known = made(poll(f"cursor={cursor(7)}"))
    assert not known.match(other)
    assert known.match(poll(f"cursor={cursor(9)}"))
    assert known.cursor == 9


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("", ""),
        ("cursor=earliest", ""),
        ("cursor=unknown", ""),
        (f"lastEventId={cursor(7)}", ""),
        (f"cursor={cursor(7)}&lastEventId={cursor(5)}", ""),
        (f"lastEventId={cursor(5)}&cursor={cursor(7)}", ""),
        (f"cursor={cursor(7)}", f"Last-Event-ID: {cursor(7)}\r\n"),
        (f"cursor={cursor(7)}", f"Last-Event-ID: {cursor(5)}\r\n"),
        (f"cursor={cursor(5)}", f"Last-Event-ID: {cursor(7)}\r\n"),
        (f"cursor={cursor(7)}", "Last-Event-ID: \r\n"),
        (f"cursor={cursor(7)}", "Connection: close\r\n"),
        (f"xcursor={cursor(7)}&cursor={cursor(7)}", ""),
        (f"cursor={cursor(7)}&cursor={cursor(7)}", ""),
        (f"cursor={cursor(7)}&%63ursor={cursor(7)}", ""),
        (f"cursor={cursor(7)}&x=%20", ""),
        (f"%63ursor={cursor(7)}", ""),
        (f"cursor={cursor(7).replace('-', '%2D')}", ""),
        (f"cursor={cursor(7)}&lastEventId=", ""),
    ],
)
def test_polls_with_more_than_one_possible_position_are_not_compared(query: str, lines: str) -> None:
    assert of(poll(query, lines)) is None


def test_the_last_of_several_cursors_is_compared() -> None:
    """As the parser has it."""
    known = made(poll(f"cursor={cursor(5)}&%63ursor={cursor(6)}&cursor={cursor(7)}&x=y"))
    again = poll(f"cursor={cursor(5)}&%63ursor={cursor(6)}&cursor={cursor(9)}&x=y")
    assert known.match(again)
    assert cursor(known.cursor) == requested_cursor(parse_head(again), EPOCH) == cursor(9)
    assert not known.match(poll(f"cursor={cursor(4)}&%63ursor={cursor(6)}&cursor={cursor(7)}&x=y"))


def test_clients_that_say_the_same_share_one_template() -> None:
    assert of(poll(f"cursor={cursor(7)}")) is of(poll(f"cursor={cursor(9)}"))
    one, other = (made(poll(f"cursor={cursor(7)}&client={name}", "User-Agent: x\r\n")) for name in "ab")
    assert one is not other
    assert one._fields is other._fields
