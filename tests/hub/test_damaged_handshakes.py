"""WebSocket handshakes as proxies damage them: each kind is told what to change, and counted."""

from __future__ import annotations

import json

import pytest

from pushcompat.wire.damage import DAMAGES

from ..harness import Client, Server

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
UPGRADE, CONNECTION = "Upgrade: websocket", "Connection: Upgrade"
EVENTS = "Accept: text/event-stream"


def send(client: Client, *lines: str, version: str = "1.1", query: str = "") -> None:
    head = [f"GET /channels/damaged{query} HTTP/{version}", "Host: test", *lines, "", ""]
    client.send("\r\n".join(head).encode())


def counted(server: Server) -> dict[str, float]:
    return {kind: server.metric(f'pushcompat_damaged_handshakes_total{{damage="{kind}"}}') for kind in DAMAGES}


@pytest.mark.parametrize(
    ("damage", "lines", "version", "query", "change"),
    [
        ("upgrade", [], "1.1", "?transport=websocket", "forward Upgrade and Connection"),
        ("upgrade", [], "1.0", "?transport=websocket", "forward Upgrade and Connection"),
        ("upgrade", [CONNECTION, KEY, VERSION], "1.1", "", "forward Upgrade and Connection"),
        ("upgrade", [CONNECTION, VERSION, EVENTS], "1.1", "", "forward Upgrade and Connection"),
        ("upgrade", ["Connection: close", KEY], "1.1", "", "forward Upgrade and Connection"),
        (
            "upgrade",
            ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", KEY, VERSION],
            "1.1",
            "",
            "forward Upgrade",
        ),
        ("connection", [UPGRADE, KEY, VERSION], "1.1", "", "send it where it sends Upgrade"),
        ("connection", [UPGRADE], "1.1", "", "send it where it sends Upgrade"),
        ("connection", [UPGRADE, "Connection: keep-alive", KEY, VERSION], "1.1", "", "send it where it sends Upgrade"),
        ("connection", [UPGRADE, "Connection: no-upgrade", KEY, VERSION], "1.1", "", "send it where it sends Upgrade"),
        ("http_version", [UPGRADE, CONNECTION, KEY, VERSION], "1.0", "", "use HTTP/1.1 to this server"),
        ("no_key", [UPGRADE, CONNECTION, VERSION], "1.1", "", "not to offer extended CONNECT"),
        ("no_key", [UPGRADE, CONNECTION, VERSION, "Sec-WebSocket-Key:"], "1.1", "", "not to offer extended CONNECT"),
        ("repeated_key", [UPGRADE, CONNECTION, KEY, KEY, VERSION], "1.1", "", "not to add one"),
        ("repeated_key", [UPGRADE, CONNECTION, "sec-websocket-key: A", KEY, VERSION], "1.1", "", "not to add one"),
        ("invalid_key", [UPGRADE, CONNECTION, KEY[:-2], VERSION], "1.1", "", "forward it unchanged"),
        ("version", [UPGRADE, CONNECTION, KEY], "1.1", "", "forward the header once"),
        ("version", [UPGRADE, CONNECTION, KEY, VERSION, VERSION], "1.1", "", "forward the header once"),
        ("version", [UPGRADE, CONNECTION, KEY, "Sec-WebSocket-Version: 8"], "1.1", "", "a client of RFC 6455"),
    ],
)
def test_a_damaged_handshake_is_told_what_to_change_and_counted(
    shared_server: Server, shared_client: Client, damage: str, lines: list[str], version: str, query: str, change: str
) -> None:
    before = counted(shared_server)
    send(shared_client, *lines, version=version, query=query)
    status, headers, body = shared_client.response()
    assert (status, headers["upgrade"]) == (426, "websocket")
    detail = json.loads(body)["detail"]
    assert change in detail
    assert "transport=eventsource" in detail
    assert counted(shared_server) == {**before, damage: before[damage] + 1}
    if damage == "version":
        assert headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    "lines",
    [
        [line.lower() for line in (UPGRADE, CONNECTION, VERSION)]
        + [KEY.replace("Sec-WebSocket-Key", "sec-websocket-key")],
        [line.replace("websocket", "WEBSOCKET").replace(": U", ": u") for line in (UPGRADE, CONNECTION)]
        + [KEY, VERSION],
        [UPGRADE, "Connection: keep-alive, Upgrade", KEY, VERSION],
        [UPGRADE, "Connection: keep-alive", "Connection: Upgrade", KEY, VERSION],
        ["Upgrade: h2c, websocket", "Connection: HTTP2-Settings , upgrade", KEY, VERSION],
        [UPGRADE, UPGRADE, CONNECTION, CONNECTION, KEY, VERSION],
    ],
    ids="; ".join,
)
def test_lists_repeated_lines_and_other_case_are_no_damage(
    shared_server: Server, shared_client: Client, lines: list[str]
) -> None:
    before = counted(shared_server)
    send(shared_client, *lines)
    assert shared_client.head()[0] == 101
    assert counted(shared_server) == before


@pytest.mark.parametrize(
    "lines",
    [
        [CONNECTION],  # what nginx adds to all requests where Connection is not a variable
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    ],
    ids="; ".join,
)
def test_what_is_left_of_another_upgrade_does_not_make_a_stream_a_handshake(
    shared_server: Server, shared_client: Client, lines: list[str]
) -> None:
    before = counted(shared_server)
    send(shared_client, *lines, EVENTS)
    assert shared_client.head()[0] == 200
    assert counted(shared_server) == before
