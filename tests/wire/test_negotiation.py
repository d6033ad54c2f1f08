from __future__ import annotations

import pytest

from pushcompat.errors import BadRequest, UpgradeRequired
from pushcompat.wire.negotiation import hold_s, requested_cursor, text_format, transport
from pushcompat.wire.request import Request, parse_head


def request(*lines: str, target: str = "/channels/chat", host: str = "push.example") -> Request:
    return parse_head("\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1"))


UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")
EVENTS = "Accept: text/event-stream"


@pytest.mark.parametrize(
    ("query", "lines", "expected"),
    [
        ("", [], "longpoll"),
        ("", ["Accept: */*"], "longpoll"),
        ("", [EVENTS], "eventsource"),
        ("", ["Accept: text/html, Text/Event-Stream;q=0.9"], "eventsource"),
        ("", UPGRADE, "websocket"),
        ("", [*UPGRADE, EVENTS], "websocket"),
        ("transport=", [EVENTS], "eventsource"),
        ("transport=longpoll", [EVENTS], "longpoll"),
        ("transport=eventsource", [], "eventsource"),
        ("transport=eventsource", UPGRADE, "eventsource"),
        ("transport=websocket", UPGRADE, "websocket"),
        ("transport=longpoll", ["Sec-WebSocket-Key: x"], "longpoll"),
    ],
)
def test_the_transport_is_negotiated_by_headers_unless_the_url_names_one(
    query: str, lines: list[str], expected: str
) -> None:
    assert transport(request(*lines, target=f"/channels/chat?{query}")) == expected


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("transport=websocket", []),
        ("transport=websocket", [EVENTS]),
        ("", ["Sec-WebSocket-Key: x"]),
        ("", ["Sec-WebSocket-Key: x", "Connection: Upgrade"]),
        ("", ["Sec-WebSocket-Key: x", EVENTS]),
    ],
)
def test_a_handshake_that_lost_its_upgrade_is_recognised(query: str, lines: list[str]) -> None:
    with pytest.raises(UpgradeRequired, match="proxy"):
        transport(request(*lines, target=f"/channels/chat?{query}"))


def test_an_unknown_transport_or_format_is_refused_with_the_choice() -> None:
    with pytest.raises(BadRequest, match="websocket, eventsource, longpoll"):
        transport(request(target="/channels/chat?transport=comet"))
    with pytest.raises(BadRequest, match="text or json"):
        text_format({"format": "xml"}, "text")


@pytest.mark.parametrize(("asked", "expected"), [({}, "text"), ({"format": ""}, "text"), ({"format": "json"}, "json")])
def test_the_format_has_a_default(asked: dict[str, str], expected: str) -> None:
    assert text_format(asked, "text") == expected


EPOCH = "aaaaaaaa"
OLD, NEW, FOREIGN = f"{EPOCH}-{5:015d}", f"{EPOCH}-{40:015d}", f"bbbbbbbb-{900:015d}"


@pytest.mark.parametrize(
    ("query", "lines", "expected"),
    [
        ("", [], ""),
        ("cursor=", [], ""),
        ("cursor=a", [], "a"),
        ("lastEventId=b", [], "b"),
        ("cursor=a", ["Last-Event-ID: "], "a"),
        (f"cursor={OLD}&lastEventId={NEW}", [], NEW),
        (f"cursor={NEW}&lastEventId={OLD}", [], NEW),
        (f"cursor={OLD}&lastEventId={OLD}", [f"Last-Event-ID: {NEW}"], NEW),
        (f"cursor={NEW}", [f"Last-Event-ID: {OLD}"], NEW),
        (f"cursor={OLD}", [f"Last-Event-ID: {FOREIGN}"], OLD),
        (f"cursor={FOREIGN}", [f"Last-Event-ID: {OLD}"], OLD),
        ("cursor=earliest", [f"Last-Event-ID: {OLD}"], OLD),
        ("cursor=earliest", [f"Last-Event-ID: {FOREIGN}"], FOREIGN),
        ("cursor=earliest", ["Last-Event-ID: unreadable"], "earliest"),
        (f"cursor={OLD}", ["Last-Event-ID: unreadable"], OLD),
    ],
)
def test_the_newest_of_several_positions_is_used(query: str, lines: list[str], expected: str) -> None:
    assert requested_cursor(request(*lines, target=f"/channels/chat?{query}"), EPOCH) == expected


@pytest.mark.parametrize(("wait", "held"), [("", 25.0), ("5", 5.0), ("0", 0.0), ("60", 25.0)])
def test_a_poll_is_held_as_long_as_it_asks_but_no_longer_than_the_window(wait: str, held: float) -> None:
    assert hold_s({"wait": wait}, 25.0) == held
