from __future__ import annotations

import pytest

from pushcompat import policy
from pushcompat.errors import BadRequest, Forbidden, Unauthorized, UpgradeRequired
from pushcompat.wire.http import Request, parse_head


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
    assert policy.transport(request(*lines, target=f"/channels/chat?{query}")) == expected


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
        policy.transport(request(*lines, target=f"/channels/chat?{query}"))


def test_an_unknown_transport_or_format_is_refused_with_the_choice() -> None:
    with pytest.raises(BadRequest, match="websocket, eventsource, longpoll"):
        policy.transport(request(target="/channels/chat?transport=comet"))
    with pytest.raises(BadRequest, match="text or json"):
        policy.text_format({"format": "xml"}, "text")


@pytest.mark.parametrize(("asked", "expected"), [({}, "text"), ({"format": ""}, "text"), ({"format": "json"}, "json")])
def test_the_format_has_a_default(asked: dict[str, str], expected: str) -> None:
    assert policy.text_format(asked, "text") == expected


@pytest.mark.parametrize(
    ("query", "lines", "expected"),
    [
        ("", [], ""),
        ("cursor=", [], ""),
        ("cursor=a", [], "a"),
        ("lastEventId=b", [], "b"),
        ("cursor=a&lastEventId=b", [], "a"),
        ("cursor=a&lastEventId=b", ["Last-Event-ID: c"], "c"),
        ("cursor=a", ["Last-Event-ID: "], "a"),
    ],
)
def test_the_last_event_id_wins_over_the_cursor_in_the_url(query: str, lines: list[str], expected: str) -> None:
    assert policy.start(request(*lines, target=f"/channels/chat?{query}")) == expected


# Keys

KEYS = [b"first-key", b"second-key"]


@pytest.mark.parametrize("line", ["Bearer first-key", "bearer second-key", "BEARER   first-key  "])
def test_any_of_the_keys_lets_a_publisher_in(line: str) -> None:
    assert policy.check_publisher(request(f"Authorization: {line}"), KEYS) == "publisher"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "publishing needs the publish key"),
        (["Authorization: "], "publishing needs the publish key"),
        (["Authorization: Bearer"], "publishing needs the publish key"),
        (["Authorization: Basic Zmlyc3Qta2V5"], "publishing needs the publish key"),
        (["Authorization: first-key"], "publishing needs the publish key"),
        (["Authorization: Bearer wrong"], "not the publish key"),
        (["Authorization: Bearer first-key2"], "not the publish key"),
        (["Authorization: Bearer f\xfcrst-key"], "not the publish key"),
        (["Authorization: Bearer first-key", "Authorization: Bearer first-key"], "not the publish key"),
    ],
)
def test_whoever_has_no_key_is_told_what_is_missing(lines: list[str], said: str) -> None:
    with pytest.raises(Unauthorized, match=said):
        policy.check_publisher(request(*lines), KEYS)


def test_without_keys_nobody_publishes() -> None:
    with pytest.raises(Unauthorized):
        policy.check_publisher(request("Authorization: Bearer x"), [])


# Origins

EXPOSED = b"Access-Control-Expose-Headers: Retry-After\r\n"
PAGE = "https://page.example"


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        ([], ()),
        ([f"Origin: {PAGE}"], ("*",)),
        ([f"Origin: {PAGE}"], ("https://other.example", PAGE)),
        (["Origin: http://push.example"], ()),
        (["Origin: https://push.example"], ()),
        (["Origin: https://public.example", "X-Forwarded-Host: public.example"], ()),
        (["Origin: https://public.example", "Sec-Fetch-Site: same-origin"], ()),
        (["Origin: null"], ("null",)),
    ],
)
def test_a_page_comes_in_from_the_same_origin_or_where_it_was_named(lines: list[str], allowed: tuple[str, ...]) -> None:
    policy.check_origin(request(*lines), allowed)  # does not raise


@pytest.mark.parametrize(
    "origin",
    [
        PAGE,
        "null",
        "http://push.example.evil.example",
        "http://push.example:81",
        "http://evil.example/push.example",
        "http://user@push.example",
        "push.example",
        "http://[",
        "http://[::1",
        "://",
        "http://",
        "http://\xbd",
        "http://a, http://push.example",
    ],
)
def test_any_other_page_stays_out(origin: str) -> None:
    with pytest.raises(Forbidden, match="--cors-origin"):
        policy.check_origin(request(f"Origin: {origin}", "Sec-Fetch-Site: cross-site"), ("https://other.example",))


def test_an_origin_with_a_port_is_the_same_with_that_port_alone() -> None:
    policy.check_origin(request("Origin: http://push.example:8888", host="push.example:8888"), ())
    with pytest.raises(Forbidden):
        policy.check_origin(request("Origin: http://push.example", host="push.example:8888"), ())


@pytest.mark.parametrize(
    ("origin", "allowed", "lines"),
    [
        (PAGE, (), b""),
        (None, ("*",), b""),
        (PAGE, ("*",), b"Access-Control-Allow-Origin: *\r\n" + EXPOSED),
        (PAGE, (PAGE,), b"Access-Control-Allow-Origin: https://page.example\r\n" + EXPOSED + b"Vary: Origin\r\n"),
        ("https://other.example", (PAGE,), b"Vary: Origin\r\n"),
        (None, (PAGE,), b"Vary: Origin\r\n"),
    ],
)
def test_the_answer_names_the_origin_that_may_read_it(
    origin: str | None, allowed: tuple[str, ...], lines: bytes
) -> None:
    assert policy.cors(request(*([f"Origin: {origin}"] if origin else [])), allowed) == lines
