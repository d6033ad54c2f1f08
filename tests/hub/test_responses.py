"""After a response: the next request, or the end of the connection; and what a refusal is like on each transport."""

from __future__ import annotations

import json

import pytest

from pushcompat.access.grant import Grant
from pushcompat.errors import BadRequest, PayloadTooLarge, RequestError, Unavailable, UpgradeRequired
from pushcompat.hub import responses as module
from pushcompat.hub.connection import Connection, State
from pushcompat.hub.reasons import CloseReason
from pushcompat.hub.timers import NEVER
from pushcompat.wire.request import Request, parse_head

from ..machine import interpreted_only
from .rig import Answer, MakeRig, Rig

HANDSHAKE = (
    b"GET /channels/a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def request(method: str = "GET", *lines: str) -> Request:
    return parse_head("\r\n".join([f"{method} /channels/a HTTP/1.1", "Host: h", *lines, "", ""]).encode())


def ended(rig: Rig) -> list[str]:
    reasons: list[str] = []
    rig.sockets.on_end(lambda connection, reason: reasons.append(reason))
    return reasons


# What follows a response


def test_a_connection_waits_for_its_next_request_for_the_idle_timeout_or_as_a_poller_for_its_grace(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(idle_s=600, poll_grace_s=10)
    idle, poller = rig.connect(), rig.subscribe("a", encoding=Answer())
    for connection in (idle, poller):
        connection.expires_at = 5
        rig.responses.sent(connection, keep_alive=True)
        assert (connection.state, connection.request, connection.expires_at) == (State.READING_HEAD, None, NEVER)
    now = rig.context.timers.now
    assert (idle.deadline, poller.deadline) == (now + 600, now + 10)


def test_a_connection_that_is_not_kept_alive_is_closed(rig: Rig) -> None:
    reasons = ended(rig)
    connection = rig.connect()
    rig.responses.sent(connection, keep_alive=False)
    assert (connection.state, reasons) == (State.CLOSING, [CloseReason.RESPONSE_SENT])
    rig.responses.sent(connection, keep_alive=True)
    assert connection.state is State.CLOSING


def test_a_full_server_keeps_subscribers_and_no_idle_connections(make_rig: MakeRig) -> None:
    rig = make_rig(max_connections=2)
    idle, poller = rig.connect(), rig.subscribe("a", encoding=Answer())
    for connection in (poller, idle):
        rig.responses.sent(connection, keep_alive=True)
    assert (idle.state, poller.state) == (State.CLOSING, State.READING_HEAD)


@pytest.mark.parametrize("unsent", [False, True])
def test_a_request_that_is_there_already_is_taken_up_when_the_response_is_out_and_nothing_is_read_before(
    rig: Rig, unsent: bool
) -> None:
    connection = rig.connect()
    connection.pending_input = b"GET "
    if unsent:
        rig.sockets.write_later(connection, b"response")
    rig.responses.sent(connection, keep_alive=True)
    assert list(rig.context.pipelined) == ([] if unsent else [connection])
    assert connection in rig.sockets._paused
    rig.sockets.flush_writes()
    assert list(rig.context.pipelined) == [connection]


def test_there_is_nothing_to_take_up_of_a_connection_without_input_or_of_a_stream(rig: Rig) -> None:
    idle, stream = rig.connect(), rig.subscribe("a")
    stream.pending_input = b"a frame"
    for connection in (idle, stream):
        rig.sockets.write_later(connection, b"response")
    rig.responses.sent(idle, keep_alive=True)
    rig.sockets.flush_writes()
    assert list(rig.context.pipelined) == []


@interpreted_only
def test_a_bug_after_one_response_costs_none_of_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    polls = [rig.subscribe("a", encoding=Answer()) for _ in range(3)]
    sent = rig.responses.sent

    def failing(connection: Connection, keep_alive: bool) -> None:
        if connection is polls[1]:
            raise ZeroDivisionError
        sent(connection, keep_alive)

    monkeypatch.setattr(rig.responses, "sent", failing)
    rig.responses.sent_to(polls, keep_alive=True)
    assert [poll.state for poll in polls] == [State.READING_HEAD, State.CLOSED, State.READING_HEAD]
    assert "BUG" in caplog.text


# Refusals


def refused(rig: Rig, connection: Connection) -> tuple[str, dict[str, str], str]:
    """The status line, the header fields and the body that were sent."""
    rig.sockets.flush_writes()
    lines = rig.read(connection)
    blank = lines.index("")
    return lines[0], dict(line.split(": ", 1) for line in lines[1:blank]), "\n".join(lines[blank + 1 :])


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (None, False),
        (request(), True),
        (request("GET", "Connection: close"), False),
        (request("POST", "Content-Length: 5"), False),  # whose body was not read
        (request("POST", "Content-Length: 0"), True),
    ],
)
def test_a_refusal_keeps_the_connection_if_all_of_the_request_was_read(
    rig: Rig, asked: Request | None, kept: bool
) -> None:
    connection = rig.connect()
    rig.responses.refuse(connection, asked, BadRequest("no"))
    status, fields, body = refused(rig, connection)
    assert status == "HTTP/1.1 400 Bad Request"
    assert fields["Connection"] == ("keep-alive" if kept else "close")
    assert json.loads(body)["detail"] == "no"
    assert connection.state is (State.READING_HEAD if kept else State.CLOSING)


def test_a_refused_head_request_has_no_body(rig: Rig) -> None:
    connection = rig.connect()
    rig.responses.refuse(connection, request("HEAD"), BadRequest("no"))
    status, fields, body = refused(rig, connection)
    assert (status, body) == ("HTTP/1.1 400 Bad Request", "")
    assert int(fields["Content-Length"]) > 0


def test_the_page_that_was_admitted_can_read_a_refusal(rig: Rig) -> None:
    line = b"Access-Control-Allow-Origin: *\r\n"
    connection = rig.connect()
    connection.grant = Grant(cors=line)
    rig.responses.refuse(connection, request(), BadRequest("no"))
    assert refused(rig, connection)[1]["Access-Control-Allow-Origin"] == "*"
    connection.grant = None
    not_admitted = BadRequest("no")
    not_admitted.cors = line
    rig.responses.refuse(connection, request(), not_admitted)
    assert refused(rig, connection)[1]["Access-Control-Allow-Origin"] == "*"
    connection.grant = Grant(cors=line)
    rig.responses.refuse(connection, None, BadRequest("what page sends this?"))
    assert "Access-Control-Allow-Origin" not in refused(rig, connection)[1]


def test_a_publish_that_was_taken_and_is_refused_keeps_its_connection(rig: Rig) -> None:
    connection = rig.connect()
    connection.move(State.PUBLISHING)
    rig.responses.fail(connection, Unavailable("later", 7), keep_alive=True, cors=b"Vary: Origin\r\n")
    status, fields, _ = refused(rig, connection)
    assert (status, fields["Retry-After"], fields["Vary"]) == ("HTTP/1.1 503 Service Unavailable", "7", "Origin")
    assert connection.state is State.READING_HEAD
    assert rig.metrics.refused == {("unavailable", "503"): 1}


@pytest.mark.parametrize("detail", ["too many", "x" * 500, "ü" * 100, "x" + "ü" * 100])
def test_a_refused_handshake_is_accepted_and_closed_with_the_reason_as_far_as_it_fits(rig: Rig, detail: str) -> None:
    reasons = ended(rig)
    connection = rig.connect()
    rig.responses.refuse(connection, parse_head(HANDSHAKE), BadRequest(detail))
    rig.sockets.flush_writes()
    head, _, frame = rig._peers[connection].recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert (frame[0], frame[1], frame[2:4]) == (0x88, len(frame) - 2, (4400).to_bytes(2, "big"))
    assert len(frame) - 2 <= 125
    assert detail.startswith(frame[4:].decode())
    assert len(frame) > min(len(detail), 110)
    assert (connection.state, reasons) == (State.CLOSING, [CloseReason.REFUSED])


def test_a_handshake_that_is_none_is_refused_as_any_request(rig: Rig) -> None:
    connection = rig.connect()
    asked = parse_head(HANDSHAKE.replace(b"Version: 13", b"Version: 8"))
    rig.responses.refuse(connection, asked, BadRequest("no"))
    assert refused(rig, connection)[0] == "HTTP/1.1 400 Bad Request"


def test_refusals_are_counted_by_reason_and_status_and_damaged_handshakes_too(rig: Rig) -> None:
    refusals: list[RequestError] = [
        BadRequest("a"),
        PayloadTooLarge("b"),
        UpgradeRequired("c", "upgrade"),
        BadRequest("d"),
    ]
    for each in refusals:
        rig.responses.refuse(rig.connect(), request(), each)
    assert rig.metrics.refused == {
        ("bad_request", "400"): 2,
        ("payload_too_large", "413"): 1,
        ("upgrade_required", "426"): 1,
    }
    assert rig.metrics.damaged_handshakes["upgrade"] == 1


@interpreted_only
def test_refusals_fill_no_log(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(module.logs, "enabled", lambda: True)
    monkeypatch.setattr(module.logs, "event", lambda name, **fields: lines.append(fields))
    for _ in range(250):
        rig.responses.refuse(rig.connect(), request(), BadRequest("x"))
    assert len(lines) == 100
    assert rig.metrics.refused == {("bad_request", "400"): 250}
