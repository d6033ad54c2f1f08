from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from ..harness import KEY, MS, Client, Server, running, sequence
from .stage import Stage, play

POLL = b"GET /channels/%b HTTP/1.1\r\nHost: test\r\n\r\n"
BEARER = b"Authorization: Bearer " + KEY.encode() + b"\r\n"


def publish(channel: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"POST /channels/%b HTTP/1.1\r\nHost: test\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
        channel, BEARER, more, len(body), body,
    )  # fmt: skip


def texts(answer: tuple[int, dict[str, str], bytes]) -> list[Any]:
    """The data of the messages in a poll's answer."""
    status, _, body = answer
    assert status == 200
    return [message["data"] for message in json.loads(body)["messages"]]


# Methods and addresses


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "TRACE", "PROPFIND"])
def test_a_method_without_a_meaning_is_refused_with_those_that_have_one(shared_client: Client, method: str) -> None:
    shared_client.request(method, "/channels/requests")
    status, headers, detail = shared_client.problem()
    assert (status, headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")
    assert method in detail
    assert shared_client.poll("requests")["messages"] == []


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("names", ["a%20b", "a/b", "a,,b", "%00", "%0d%0aX:%20y", "a%2Fb", "x" * 129, "%C3%BC"])
def test_a_bad_name_is_refused(shared_client: Client, method: str, names: str) -> None:
    shared_client.request(method, f"/channels/{names}", Authorization=f"Bearer {KEY}")
    status, headers = shared_client.head()
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    if method != "HEAD":
        assert "invalid channel name" in json.loads(shared_client.exactly(int(headers["content-length"])))["detail"]
    assert shared_client.poll("requests")["messages"] == []


def test_64_channels_are_followed_and_65_are_not(shared_client: Client) -> None:
    names = [f"many-{index}" for index in range(65)]
    assert shared_client.poll(",".join(names[:64]))["messages"] == []
    shared_client.request("GET", "/channels/" + ",".join(names))
    status, _, detail = shared_client.problem()
    assert status == 400
    assert "too many channels: 65" in detail
    assert shared_client.poll("requests")["messages"] == []


@pytest.mark.parametrize("target", ["/channels?transport=longpoll", "/channels/?wait=1", "/channels?cursor=earliest"])
def test_following_nothing_is_refused_with_an_example(shared_client: Client, target: str) -> None:
    shared_client.request("GET", target)
    status, _, detail = shared_client.problem()
    assert (status, "GET /channels/NAME" in detail) == (404, True)
    shared_client.request("HEAD", target)
    assert shared_client.head()[0] == 404


def test_percent_escapes_in_names_are_decoded_first(shared_client: Client) -> None:
    shared_client.publish("esc%61ped%2Ctwo", b"x")
    assert json.loads(shared_client.response()[2])["channels"].keys() == {"escaped", "two"}


def test_the_absolute_form_and_lower_case_headers_are_understood(shared_client: Client) -> None:
    shared_client.send(
        b"POST http://push.example/channels/absolute HTTP/1.1\r\nhost: push.example\r\nauthorization: bearer "
        + KEY.encode()
        + b"\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"
    )
    assert shared_client.response()[0] == 200
    shared_client.send(
        b"GET http://push.example/channels/absolute?cursor=earliest HTTP/1.1\r\nhost: push.example\r\n\r\n"
    )
    assert texts(shared_client.response()) == ["hi"]


@pytest.mark.parametrize("query", ["wait=x", "wait=-1", "wait=nan", "transport=comet", "format=xml"])
def test_a_parameter_that_makes_no_sense_is_refused_by_name(shared_client: Client, query: str) -> None:
    shared_client.request("GET", f"/channels/requests?{query}")
    status, _, detail = shared_client.problem()
    assert (status, detail.startswith(query.partition("=")[0] + "=")) == (400, True)


def test_a_subscription_may_not_have_a_body(shared_client: Client) -> None:
    shared_client.request("GET", "/channels/requests", b"POST /channels/requests HTTP/1.1\r\n\r\n")
    status, headers, detail = shared_client.problem()
    assert (status, headers["connection"]) == (400, "close")
    assert "POST" in detail
    assert shared_client.to_end() == b""


@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n"])
@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"DELETE", b"GET"])
def test_a_body_nobody_asked_for_is_never_read_as_the_next_request(
    shared_client: Client, method: bytes, framing: bytes
) -> None:
    smuggled = publish(b"smuggled", b"x")
    shared_client.send(method + b" /channels/requests HTTP/1.1\r\nHost: test\r\n" + framing % len(smuggled) + smuggled)
    assert shared_client.head()[1]["connection"] == "close"
    assert b"HTTP/1.1" not in shared_client.to_end()


# Cursors


@pytest.mark.parametrize(
    "cursor",
    ["garbage", "0", "-1", "%ff%fe", "%00", "x" * 5000, "00000000-000000000000000", "00000000-99999999999999", "null"],
)
def test_a_cursor_that_can_not_be_read_resets_and_is_never_an_error(shared_client: Client, cursor: str) -> None:
    answer = shared_client.poll("unread", f"cursor={cursor}")
    assert answer["reset"] == ["unread"]
    assert "reset" not in shared_client.poll("unread", f"cursor={answer['cursor']}")


@pytest.mark.parametrize("cursor", ["garbage", "00000000-000000000000000", "\xff"])
def test_a_last_event_id_that_can_not_be_read_does_not_kill_the_event_source(
    shared_client: Client, cursor: str
) -> None:
    lines = f"GET /channels/unread HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\nLast-Event-ID: {cursor}\r\n"
    shared_client.send(lines.encode("latin-1") + b"\r\n")
    assert shared_client.head()[0] == 200
    said = [json.loads(shared_client.event()["data"])["control"] for _ in range(3)]
    assert said == ["open", "ping", "reset"]


# One after the other on one connection


def test_pipelined_requests_are_answered_in_order(shared_client: Client) -> None:
    shared_client.send(
        publish(b"pipe", b"one")
        + POLL % b"pipe?cursor=earliest"
        + POLL % b"%20"
        + publish(b"pipe", b"two")
        + POLL % b"pipe"
    )
    assert shared_client.response()[0] == 200
    assert texts(shared_client.response()) == ["one"]
    assert shared_client.problem()[0] == 400
    assert [shared_client.response()[0] for _ in range(2)] == [200, 200]
    assert [message["data"] for message in shared_client.retained("pipe")] == ["one", "two"]


def test_requests_to_the_hub_and_to_tornado_may_be_pipelined(shared_client: Client) -> None:
    page = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
    shared_client.send(publish(b"mixed", b"x") + page + POLL % b"mixed?cursor=earliest" + page + page + POLL % b"mixed")
    assert shared_client.response()[0] == 200
    assert shared_client.response()[2] == b"ok\n"
    assert texts(shared_client.response()) == ["x"]
    assert [shared_client.response()[2] for _ in range(2)] == [b"ok\n"] * 2
    assert texts(shared_client.response()) == []


def test_a_request_behind_a_held_poll_waits_its_turn(shared_server: Server, shared_client: Client) -> None:
    shared_client.send(POLL % b"held?wait=20" + publish(b"other", b"late") + POLL % b"held?cursor=earliest")
    shared_server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
    assert shared_server.publish("held", "now")["channels"]["held"] == {"subscribers": 1}
    assert texts(shared_client.response()) == ["now"]
    answer = json.loads(shared_client.response()[2])
    assert answer["channels"] == {"other": {"subscribers": 0}}
    assert texts(shared_client.response()) == ["now"]


def test_any_amount_may_be_pipelined_behind_a_held_poll(shared_server: Server, shared_client: Client) -> None:
    body = b"x" * 1000
    rest = b"".join(publish(b"bulk", body) for _ in range(100))
    shared_client.send(POLL % b"gate?wait=20")
    shared_server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
    shared_client.send(rest)
    shared_server.publish("gate", "open")
    assert texts(shared_client.response()) == ["open"]
    answers = [shared_client.response() for _ in range(100)]
    assert {status for status, _, _ in answers} == {200}
    numbers = [sequence(json.loads(answer[2])["id"]) for answer in answers]
    assert numbers == sorted(numbers)
    assert len(shared_client.retained("bulk")) == 100


def test_no_more_than_a_head_is_read_behind_a_held_poll() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed("longpoll-json", "gate", wait="20")
        (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
        sending = asyncio.ensure_future(
            asyncio.get_running_loop().sock_sendall(client.socket, publish(b"bulk", b"x" * 1000) * 10_000)
        )
        await stage.until(lambda: connection in stage.hub.sockets._paused)
        read = len(connection.pending_input)
        assert read <= stage.hub._context.limits.head_bytes + 4096
        for _ in range(3):  # the hub takes turns, and reads others
            await stage.publish("elsewhere")
            await (other := await stage.client()).subscribe("longpoll-json", "elsewhere")
            await other.event()
        assert len(connection.pending_input) == read
        assert not sending.done()
        sending.cancel()

    play(scenario)


def test_a_request_behind_a_repeated_publish_does_not_wait_for_the_clock(shared_client: Client) -> None:
    again = publish(b"behind", b"x", b"Idempotency-Key: behind\r\n")
    shared_client.send(again)
    shared_client.response()
    begun = time.monotonic()
    for _ in range(6):
        shared_client.send(again + POLL % b"behind")
        assert [shared_client.response()[0] for _ in range(2)] == [200, 200]
    assert time.monotonic() - begun < 2000 * MS  # a turn a second would take five


def test_a_refusal_that_read_its_whole_request_keeps_the_connection(shared_client: Client) -> None:
    shared_client.send(publish(b"kept", b"{", b"Content-Type: application/json\r\n") + POLL % b"kept")
    status, headers, _ = shared_client.problem()
    assert (status, headers["connection"]) == (400, "keep-alive")
    assert texts(shared_client.response()) == []


# Older clients, and those that close


def test_an_http_1_0_poll_is_closed_after_its_answer(shared_client: Client) -> None:
    shared_client.send(b"GET /channels/old?wait=0 HTTP/1.0\r\n\r\n")
    status, headers, body = shared_client.response()
    assert (status, headers["connection"]) == (200, "close")
    assert json.loads(body)["messages"] == []
    assert shared_client.to_end() == b""


def test_an_http_1_0_client_can_follow_an_event_stream(shared_server: Server, shared_client: Client) -> None:
    shared_client.send(b"GET /channels/old HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
    status, headers = shared_client.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert not {"transfer-encoding", "content-length"} & headers.keys()
    shared_client.event()
    shared_client.event()
    shared_server.publish("old", "news")
    assert shared_client.event()["data"] == "news"


@pytest.mark.parametrize("request_line", ["GET /channels/last HTTP/1.1", "GET /healthz HTTP/1.1"])
def test_a_connection_closes_after_the_answer_where_the_client_says_so(
    shared_client: Client, request_line: str
) -> None:
    shared_client.send(f"{request_line}\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    status, headers, _ = shared_client.response()
    assert (status, headers["connection"]) == (200, "close")
    assert shared_client.to_end() == b""


def test_an_http_1_0_client_may_keep_its_connection(shared_client: Client) -> None:
    for _ in range(2):
        shared_client.send(b"GET /channels/old HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        status, headers, _ = shared_client.response()
        assert (status, headers["connection"]) == (200, "keep-alive")


@pytest.mark.parametrize("size", [1, 60_000])
def test_a_client_that_has_said_its_last_still_gets_the_answer_to_its_publish(shared_client: Client, size: int) -> None:
    shared_client.send(publish(b"half", b"x" * size) + publish(b"half", b"two"))
    shared_client.socket.shutdown(socket.SHUT_WR)
    assert [shared_client.response()[0] for _ in range(2)] == [200, 200]
    assert shared_client.to_end() == b""


@pytest.mark.options("--close-timeout", "1h", "--idle-timeout", "1h")
def test_nothing_stays_behind_of_clients_that_have_gone(server: Server) -> None:
    closing = b"Connection: close\r\n"
    held = (POLL % b"gate?wait=20").replace(b"\r\n\r\n", b"\r\n" + closing + b"\r\n")
    for data in (publish(b"gone", b"x", closing), publish(b"gone", b"x"), POLL % b"gone", held + b"x" * 40_000):
        with server.connect() as client:
            client.send(data)
            if data.startswith(held):
                server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
                server.publish("gate")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.response()[0] == 200
            assert client.to_end() == b""
            server.wait_for_metric("pushcompat_connections", 0, 0)


@pytest.mark.options("--close-timeout", "1", "--heartbeat", "1", "--unsent-limit", "4KiB")
def test_a_last_answer_reaches_whoever_reads_slowly(server: Server) -> None:
    for index in range(4):
        server.publish("slow", f"{index}" * 60_000)
    with server.connect(receive_buffer=4096) as slow, server.connect() as clock:
        slow.send(b"GET /channels/slow?cursor=earliest HTTP/1.0\r\n\r\n")
        status, headers = slow.head()
        assert (status, headers["connection"]) == (200, "close")
        clock.request("GET", "/channels/clock", Accept="text/event-stream")
        clock.head()
        for _ in range(6):  # the opening is two; then one comes about every second
            clock.event()
        body = slow.to_end()
        assert len(body) == int(headers["content-length"])
        assert len(json.loads(body)["messages"]) == 4


# Bodies


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--body-timeout", "1")


@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n\r\nfirst", b"Transfer-Encoding: chunked\r\n\r\n5\r\nfir"])
def test_a_body_that_does_not_come_is_not_waited_for(impatient_server: Server, framing: bytes) -> None:
    with impatient_server.connect() as client:
        client.send(b"POST /channels/late HTTP/1.1\r\nHost: test\r\n" + BEARER + framing)
        status, headers, detail = client.problem()
        assert (status, headers["connection"]) == (408, "close")
        assert "body" in detail
        assert client.to_end() == b""
    with impatient_server.connect() as client:
        assert client.poll("late", "cursor=earliest")["messages"] == []


def test_a_body_that_comes_byte_by_byte_gets_no_more_time_for_it(impatient_server: Server) -> None:
    with impatient_server.connect() as client:
        client.send(b"POST /channels/late HTTP/1.1\r\nHost: test\r\n" + BEARER + b"Content-Length: 1000\r\n\r\n")
        begun = time.monotonic()
        while not select.select([client.socket], [], [], 50 * MS)[0]:
            client.send(b"x")
            assert time.monotonic() - begun < 4000 * MS
        assert client.problem()[0] == 408


EXPECT = b"POST /channels/expect HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"


@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_client_that_expects_100_continue_gets_it(shared_client: Client, framing: bytes) -> None:
    shared_client.send(EXPECT + BEARER + framing)
    assert shared_client.head() == (100, {})
    shared_client.send(b"hi" if b"Length" in framing else b"2\r\nhi\r\n0\r\n\r\n")
    assert shared_client.response()[0] == 200


def test_a_body_that_is_there_is_not_asked_for(shared_client: Client) -> None:
    shared_client.send(EXPECT + BEARER + b"Content-Length: 2\r\n\r\nhi")
    assert shared_client.response()[0] == 200


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (b"Content-Length: 2\r\n", 401),
        (b"Authorization: Bearer wrong\r\nContent-Length: 2\r\n", 401),
        (BEARER + b"Content-Length: 65537\r\n", 413),
        (BEARER + b"Content-Length: 2\r\nContent-Type: image/png\r\n", 415),
        (BEARER + b"Content-Length: 2\r\nOrigin: https://evil.example\r\n", 403),
    ],
)
def test_the_head_is_enough_to_refuse_the_body(shared_client: Client, more: bytes, expected: int) -> None:
    shared_client.send(EXPECT + more + b"\r\n")
    status, headers, _ = shared_client.problem()
    assert (status, headers["connection"]) == (expected, "close")
    assert shared_client.to_end() == b""


def test_a_body_that_was_asked_for_and_does_not_come_is_not_waited_for(impatient_server: Server) -> None:
    with impatient_server.connect() as client:
        client.send(EXPECT + BEARER + b"Content-Length: 2\r\n\r\n")
        assert client.head() == (100, {})
        assert client.problem()[0] == 408


def test_publishers_that_vanish_at_any_point_harm_nobody(shared_server: Server, shared_client: Client) -> None:
    body = EXPECT + BEARER + b"Content-Length: 10\r\n\r\n"
    for data in (body, body + b"x", publish(b"vanish", b"y"), POLL % b"vanish?wait=20", body[:50]) * 10:
        with shared_server.connect() as client:
            client.send(data)
            client.reset()
    assert shared_client.poll("expect")["messages"] == []


@pytest.mark.parametrize(
    "request_", [POLL % b"dated", POLL % b"dated?transport=eventsource", POLL % b"%20", publish(b"dated", b"x")]
)
def test_every_answer_says_when_it_was_made(shared_client: Client, request_: bytes) -> None:
    shared_client.send(request_)
    date = parsedate_to_datetime(shared_client.head()[1]["date"])
    assert abs(time.time() - date.timestamp()) < 5


# HEAD, OPTIONS, and pages of other origins


@pytest.mark.parametrize(("query", "kind"), [("", "application/json"), ("?transport=eventsource", "text/event-stream")])
def test_head_says_what_get_would_say_of_itself(shared_client: Client, query: str, kind: str) -> None:
    shared_client.request("HEAD", f"/channels/requests{query}")
    status, headers = shared_client.head()
    assert (status, headers["content-type"], headers["cache-control"]) == (200, kind, "no-store, no-transform")
    assert shared_client.poll("requests")["messages"] == []


@pytest.mark.parametrize(
    ("target", "expected"), [("/channels/requests?transport=x", 400), ("/channels/requests?transport=websocket", 426)]
)
def test_a_refused_head_has_no_body_either(shared_client: Client, target: str, expected: int) -> None:
    shared_client.request("HEAD", target)
    status, headers = shared_client.head()
    assert (status, headers["content-type"]) == (expected, "application/problem+json")
    assert shared_client.poll("requests")["messages"] == []


def test_options_tells_what_is_allowed(shared_client: Client) -> None:
    for target in ("/channels", "/channels/requests"):
        shared_client.request("OPTIONS", target, Origin="https://page.example")
        status, headers = shared_client.head()
        assert (status, headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")
        assert "access-control-allow-origin" not in headers, "without it, a browser takes the answer for a refusal"
    assert shared_client.poll("requests")["messages"] == []


@pytest.mark.parametrize("origin", ["https://page.example", "null", "http://[", "http://test.evil.example"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_pages_of_other_origins_stay_out_by_default(shared_client: Client, method: str, origin: str) -> None:
    shared_client.request(method, "/channels/requests", Origin=origin, Authorization=f"Bearer {KEY}")
    status, headers = shared_client.head()
    assert (status, headers["content-type"]) == (403, "application/problem+json")
    assert "access-control-allow-origin" not in headers


def test_pages_of_the_same_origin_come_in(shared_client: Client) -> None:
    shared_client.request("GET", "/channels/requests", Origin="http://test")
    assert shared_client.response()[0] == 200


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_pages_of_this_machine_may_use_a_server_that_only_this_machine_can_reach(
    shared_client: Client, method: str
) -> None:
    shared_client.request(method, "/channels/requests", Origin="http://localhost:5173")
    status, headers = shared_client.head()
    assert (status, headers["access-control-allow-origin"]) == (
        200 if method == "GET" else 204,
        "http://localhost:5173",
    )
    shared_client.exactly(int(headers.get("content-length", "0")))


PAGE = "https://page.example"


@pytest.fixture(scope="module")
def cors_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--cors-origin", PAGE)


def test_a_page_of_an_allowed_origin_can_read_every_answer(cors_server: Server) -> None:
    with cors_server.connect() as client:
        for method, target, more, expected in (
            ("GET", "/channels/cors", {}, 200),
            ("GET", "/channels/%20", {}, 400),
            ("HEAD", "/channels/cors", {}, 200),
            ("POST", "/channels/cors", {"Authorization": f"Bearer {KEY}"}, 200),
            ("POST", "/channels/cors", {}, 401),
            ("GET", "/channels/cors", {"Accept": "text/event-stream"}, 200),
        ):
            client.request(method, target, Origin=PAGE, **more)
            status, headers = client.head()
            assert (status, headers["access-control-allow-origin"], headers["vary"]) == (expected, PAGE, "Origin")
            if method != "HEAD":
                client.exactly(int(headers.get("content-length", "0")))


def test_a_page_of_another_origin_can_not(cors_server: Server) -> None:
    with cors_server.connect() as client:
        client.request("GET", "/channels/cors", Origin="https://other.example")
        status, headers, detail = client.problem()
        assert (status, headers["vary"]) == (403, "Origin")
        assert "access-control-allow-origin" not in headers
        assert "--cors-origin https://other.example" in detail
        client.request("GET", "/channels/cors")
        status, headers, _ = client.response()
        assert (status, headers["vary"]) == (200, "Origin")


def test_a_preflight_allows_what_clients_send(cors_server: Server) -> None:
    with cors_server.connect() as client:
        client.request(
            "OPTIONS", "/channels/cors", Origin=PAGE,
            Access_Control_Request_Method="GET", Access_Control_Request_Headers="last-event-id, hx-request,x y, X-Ours",
        )  # fmt: skip
        status, headers = client.head()
        assert (status, headers["access-control-allow-origin"]) == (204, PAGE)
        assert "POST" in headers["access-control-allow-methods"]
        allowed = headers["access-control-allow-headers"].lower().split(", ")
        assert {"last-event-id", "authorization", "content-type", "idempotency-key"} <= set(allowed)
        assert {"hx-request", "x-ours"} <= set(allowed), "what it asks for"
        assert len(allowed) == len(set(allowed)) == 7
        assert headers["access-control-allow-credentials"] == "true"
        assert int(headers["access-control-max-age"]) > 0
        assert "content-length" not in headers
        assert client.poll("cors")["messages"] == []


@pytest.mark.options("--cors-origin", "*")
def test_everyone_may_be_allowed(client: Client) -> None:
    client.request("GET", "/channels/cors", Origin=PAGE)
    status, headers, _ = client.response()
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in headers, "no browser would accept both"


# The log


def test_a_refusal_is_one_line_of_the_log_whatever_the_client_sent(
    shared_server: Server, shared_client: Client
) -> None:
    shared_client.request("GET", "/channels/forged%0a2026-01-01%20INFO%20x%1b[31m?token=secret-token")
    assert shared_client.problem()[0] == 400
    line = shared_server.wait_for_log("forged")
    assert "status=400" in line
    assert "\x1b" not in line
    assert not any(entry.startswith("2026-01-01 INFO") or "secret-token" in entry for entry in shared_server.log)


def test_a_quiet_event_stream_says_something_behind_its_opening(shared_client: Client) -> None:
    """Long before a heartbeat is due: a proxy may hold back what came with the head until then."""
    shared_client.request("GET", "/channels/quiet?transport=eventsource")
    shared_client.head()
    assert [json.loads(shared_client.event()["data"])["control"] for _ in range(3)] == ["open", "ping", "ping"]
