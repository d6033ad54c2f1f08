"""Streams: what a subscriber may send, when there is a heartbeat, when a stream ends and how either side closes it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from pushcompat.hub import streams as module
from pushcompat.hub.connection import Connection, State
from pushcompat.limits import Limits
from pushcompat.message import Message

from ..harness import PATIENCE_S, Client, Server, client_frame, running
from .stage import Stage, play

FIN = 0x80
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
OPEN = 'pushcompat_subscriptions{transport="websocket"}'
MIB = 1024 * 1024


def said(client: Client) -> dict[str, Any]:
    """The next text frame's JSON."""
    first, payload = client.frame()
    assert first == FIN | TEXT
    document: dict[str, Any] = json.loads(payload)
    return document


def is_closed(client: Client, code: int) -> str:
    """Reads the server's Close and the end behind it; returns the reason."""
    first, payload = client.frame()
    assert (first, payload[:2]) == (FIN | CLOSE, code.to_bytes(2, "big"))
    assert client.to_end() == b""
    return payload[2:].decode()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that reads at once what would take half a minute at the default rate."""
    yield from running(tmp_path_factory.mktemp("state"), "--websocket-input-rate", "1MiB")


# What a subscriber sends


def test_the_2009_client_is_told_updated_and_its_noops_are_ignored(server: Server) -> None:
    with server.connect() as client:
        assert client.upgrade("/channels/myapp") == 101
        for _ in range(3):
            client.send_frame(FIN | TEXT, b"NOOP")
            assert server.publish("myapp")["channels"] == {"myapp": {"subscribers": 1}}
            assert client.frame() == (FIN | TEXT, b"UPDATED")
        client.send_frame(FIN | CLOSE)
        assert client.frame() == (FIN | CLOSE, b"")
        assert client.to_end() == b""


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([client_frame(FIN | TEXT, b"NOOP")], id="text"),
        pytest.param([client_frame(FIN | BINARY, b"\xff\xfe")], id="binary"),
        pytest.param([client_frame(FIN | PONG, b"unasked")], id="an unasked pong"),
        pytest.param([client_frame(FIN | TEXT, b"NOOP") * 100], id="many frames in one piece"),
        pytest.param([client_frame(TEXT, b"NO"), client_frame(FIN | CONT, b"OP")], id="fragments"),
        pytest.param([client_frame(FIN | TEXT, b"x" * 64 * 1024)], id="as much as is allowed"),
        pytest.param([bytes([byte]) for byte in client_frame(FIN | TEXT, b"NOOP")], id="byte by byte"),
        pytest.param(
            [client_frame(FIN | TEXT, b"NOOP")[:6], client_frame(FIN | TEXT, b"NOOP")[6:]], id="head and body"
        ),
    ],
)
def test_messages_from_subscribers_are_read_and_ignored(shared_server: Server, sent: list[bytes]) -> None:
    with shared_server.connect() as client:
        assert client.upgrade("/channels/ignored") == 101
        for number, piece in enumerate(sent):
            client.send(piece)
            # The server has read the piece by the time that the next one comes: it delivers in between.
            shared_server.publish("ignored", f"{number}")
            assert client.frame() == (FIN | TEXT, b"%d" % number)
        client.send_frame(FIN | PING, b"still there?")
        assert client.frame() == (FIN | PONG, b"still there?")


def test_input_on_an_event_stream_is_ignored(shared_server: Server) -> None:
    with shared_server.connect() as client:
        request = b"GET /channels/events HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n"
        client.send(request + b"\x88\x00")
        assert client.head()[0] == 200
        for data in (request, client_frame(FIN | PING, b"x"), client_frame(FIN | CLOSE), b"\xff" * 100):
            client.send(data)
            shared_server.publish("events", "still here")
            while (event := client.event()).get("event") == "control":
                pass
            assert event["data"] == "still here"


def test_a_ping_that_comes_in_one_piece_with_the_handshake_is_answered(shared_server: Server) -> None:
    with shared_server.connect() as client:
        ping = client_frame(FIN | PING, b"early")
        client.send(
            b"GET /channels/chat HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + ping
        )
        assert client.head()[0] == 101
        assert client.frame() == (FIN | PONG, b"early")


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        pytest.param(1002, client_frame(FIN | TEXT, b"NOOP", mask=b""), id="unmasked"),
        pytest.param(1002, client_frame(FIN | 0x40 | TEXT, b"NOOP"), id="reserved bit"),
        pytest.param(1002, client_frame(FIN | 3), id="reserved opcode"),
        pytest.param(1002, client_frame(FIN | CONT, b"x"), id="continuation of nothing"),
        pytest.param(1002, client_frame(FIN | PING, b"x" * 126), id="long ping"),
        pytest.param(1002, client_frame(FIN | CLOSE, b"\x03\xed"), id="close with 1005"),
        pytest.param(1002, client_frame(FIN | CLOSE, b"\x03\xee"), id="close with 1006"),
        pytest.param(1007, client_frame(FIN | TEXT, b"\xff"), id="not UTF-8"),
        pytest.param(1009, client_frame(FIN | BINARY, b"x" * (64 * 1024 + 1)), id="too much"),
        pytest.param(1009, client_frame(BINARY, b"x" * 64 * 1024) + client_frame(CONT, b"x"), id="too many"),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_so_and_forgotten(
    shared_server: Server, code: int, sent: bytes
) -> None:
    channel = f"breach-{sent[:4].hex()}"
    with shared_server.connect() as client:
        assert client.upgrade(f"/channels/{channel}") == 101
        client.send(sent)
        assert is_closed(client, code)
        shared_server.wait_for_log(rf"unsubscribe channels={channel} .*reason=client_closed code={code}")
        assert shared_server.publish(channel)["channels"][channel]["subscribers"] == 0


# Floods


def next_pong(client: Client) -> int:
    """The number in the next pong."""
    while True:
        first, payload = client.frame()
        if first == FIN | PONG:
            return int(payload)


@pytest.mark.options("--websocket-input-rate", "10MiB")
def test_only_the_latest_of_many_pings_is_answered_and_they_cost_no_memory(server: Server) -> None:
    """RFC 6455 §5.5.3: of pings that came before one is answered, only the latest needs an answer."""
    with server.connect() as client:
        assert client.upgrade("/channels/chat") == 101
        before = server.memory()
        answered = -1
        for start in range(0, 30_000, 1000):
            client.send(b"".join(client_frame(FIN | PING, b"%d" % n) for n in range(start, start + 1000)))
            while answered < start + 999:
                number = next_pong(client)
                assert answered < number < start + 1000
                answered = number
        assert server.memory() - before < 4 * MIB


def test_a_flood_is_not_read_faster_than_its_rate_and_delays_nobody(server: Server) -> None:
    flood = client_frame(FIN | PING, b"%0125d" % 0) * 150_000  # 19.6 MB
    sent = 0
    with server.connect(receive_buffer=4096) as flooder, server.connect() as healthy:
        assert flooder.upgrade("/channels/chat") == 101
        assert healthy.upgrade("/channels/chat") == 101
        before = server.memory()
        flooder.socket.setblocking(False)
        for _ in range(50):
            try:
                while sent < len(flood):
                    sent += flooder.socket.send(flood[sent : sent + MIB])
            except BlockingIOError:
                pass
            server.publish("chat?key=same", "meanwhile")
            assert healthy.frame() == (FIN | TEXT, b"meanwhile")
        assert sent < len(flood) / 2, "what the kernel takes, and little more"
        assert server.memory() - before < 4 * MIB


# Goodbyes


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4999])
def test_the_clients_close_code_is_echoed(shared_server: Server, code: int) -> None:
    with shared_server.connect() as client:
        assert client.upgrade(f"/channels/closed-{code}") == 101
        client.send_frame(FIN | CLOSE, code.to_bytes(2, "big") + b"bye")
        assert is_closed(client, code) == "bye"
        shared_server.wait_for_log(rf"unsubscribe channels=closed-{code} .*reason=client_closed code={code}")
        assert shared_server.metric(OPEN) == 0


@pytest.mark.options("--request-cap", "7", "--heartbeat", "60", "--close-timeout", "1")
def test_a_websocket_whose_time_is_up_is_told_to_rotate_and_closed_with_1012(server: Server) -> None:
    with server.connect() as client, server.connect() as text:
        assert client.upgrade("/channels/chat?format=json") == 101
        assert text.upgrade("/channels/chat") == 101
        opened = said(client)
        assert (opened["control"], opened["heartbeat"]) == ("open", 60)
        assert 4 <= opened["lifetime"] <= 5
        cursor = server.publish("chat", "hello")["id"]
        assert said(client)["id"] == cursor
        rotate = said(client)
        assert (rotate["control"], rotate["cursor"]) == ("rotate", cursor)
        assert rotate["retry"] >= 0
        assert text.frame() == (FIN | TEXT, b"hello")
        for ending in (client, text):
            assert ending.frame() == (FIN | CLOSE, b"\x03\xf4rotated")
        client.send_frame(FIN | CLOSE, b"\x03\xf4")
        for ending in (client, text):  # one said goodbye, the other is let go all the same
            assert ending.to_end() == b""
        server.wait_for_metric(OPEN, 0, 0)


@pytest.mark.parametrize(
    ("code", "target", "headers", "reason"),
    [
        (4400, "/channels/a%20b", {}, "invalid channel name"),
        (4400, "/channels/a,,b", {}, "invalid channel name"),
        (4400, "/channels/chat?format=xml", {}, "use text or json"),
        (4403, "/channels/chat", {"Origin": "https://elsewhere.example"}, "--cors-origin https://elsewhere.example"),
        (4404, "/channels", {}, "no channel given"),
    ],
)
def test_a_refusal_is_an_accepted_handshake_and_a_close_that_a_page_can_see(
    shared_server: Server, code: int, target: str, headers: dict[str, str], reason: str
) -> None:
    with shared_server.connect() as client:
        assert client.upgrade(target, **headers) == 101
        first, payload = client.frame()
        assert (first, payload[:2]) == (FIN | CLOSE, code.to_bytes(2, "big"))
        assert reason in payload[2:].decode()
        assert len(payload) <= 125
        client.send_frame(FIN | CLOSE, payload[:2])
        assert client.to_end() == b""


def test_a_handshake_that_is_none_is_refused_in_http(shared_server: Server) -> None:
    with shared_server.connect() as client:
        client.request(
            "GET", "/channels/chat", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="8",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        status, headers, body = client.response()
        assert (status, headers["sec-websocket-version"]) == (426, "13")
        assert "Sec-WebSocket-Version: 13" in json.loads(body)["detail"]
        assert client.upgrade("/channels/chat") == 101, "the connection is still good"


# Somebody else's client


def test_the_websockets_library_follows_pings_and_says_goodbye(server: Server) -> None:
    url = server.url.replace("http", "ws")
    with connect(f"{url}/channels/chat?format=json", open_timeout=PATIENCE_S, close_timeout=PATIENCE_S) as client:
        assert json.loads(client.recv(PATIENCE_S))["control"] == "open"
        assert client.ping().wait(PATIENCE_S)
        client.send("NOOP")
        client.send(b"binary")
        client.send(["frag", "ment"])
        server.publish("chat", "Grüße")
        assert json.loads(client.recv(PATIENCE_S))["data"] == "Grüße"
    assert (client.close_code, client.close_reason) == (1000, "")
    server.wait_for_log(r"unsubscribe .*reason=client_closed code=1000")


def test_the_websockets_library_sees_why_it_was_refused(shared_server: Server) -> None:
    url = shared_server.url.replace("http", "ws")
    with connect(f"{url}/channels/{'x' * 129}", open_timeout=PATIENCE_S, close_timeout=PATIENCE_S) as client:
        with pytest.raises(ConnectionClosedError):
            client.recv(PATIENCE_S)
        assert client.close_code == 4400


def test_the_websockets_library_is_told_that_the_server_stops(server: Server) -> None:
    url = server.url.replace("http", "ws")
    with connect(f"{url}/channels/chat?format=json", open_timeout=PATIENCE_S, close_timeout=PATIENCE_S) as client:
        cursor = json.loads(client.recv(PATIENCE_S))["cursor"]
        assert server.stop() == 0
        assert json.loads(client.recv(PATIENCE_S)).items() >= {"control": "rotate", "cursor": cursor}.items()
        with pytest.raises(ConnectionClosedError):
            client.recv(PATIENCE_S)
        assert (client.close_code, client.close_reason) == (1012, "shutdown")


# Time, by a clock of the test's own

STREAMS = ("websocket-json", "websocket-text", "eventsource-json")


async def streams(stage: Stage, wire: str, count: int) -> list[Connection]:
    for _ in range(count):
        await stage.subscribed(wire, "a")
    return [c for c in stage.hub.sockets.connections() if c.state is State.STREAMING]


@pytest.mark.parametrize("wire", STREAMS)
def test_no_stream_is_silent_for_longer_than_the_heartbeat_and_not_all_beat_together(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        crowd = await streams(stage, wire, 60)
        await stage.hub.let_pass(21)  # the first one of an event stream comes early
        beats = Counter[int]()
        for second in range(60):
            before = [connection.last_write for connection in crowd]
            await stage.hub.let_pass()
            now = stage.hub.timers.now
            for connection, last_write in zip(crowd, before, strict=True):
                assert now - connection.last_write < 20
                if connection.last_write != last_write:
                    assert connection.last_write == now
                    assert 16 <= now - last_write <= 20
                    beats[second] += 1
        assert 60 * 3 <= beats.total() <= 60 * 4
        assert max(beats.values()) < 40

    play(scenario, Limits(heartbeat_s=20))


@pytest.mark.parametrize("wire", STREAMS)
def test_a_stream_rotates_in_the_second_that_its_time_is_up_and_not_all_do_so_together(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        begun = stage.hub.timers.now
        crowd = await streams(stage, wire, 60)
        until = {connection: connection.expires_at - begun for connection in crowd}
        assert all(40 <= seconds <= 50 for seconds in until.values())
        assert max(Counter(until.values()).values()) < 30
        for second in range(1, 51):
            await stage.hub.let_pass()
            for connection in crowd:
                assert (connection.state is State.STREAMING) is (second < until[connection])
        assert stage.hub.metrics.unsubscribes == Counter({"rotated": 60})

    play(scenario, Limits(request_cap_s=52, heartbeat_s=15))


@pytest.mark.parametrize(("drawn", "lifetime"), [(0, 40), (1, 50)])
def test_a_stream_lives_for_four_fifths_of_what_the_request_cap_leaves_or_longer_but_never_over_it(
    monkeypatch: pytest.MonkeyPatch, drawn: int, lifetime: int
) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed("websocket-json", "a")
        (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
        assert connection.expires_at - connection.request_started == lifetime
        assert (await client.event()).lifetime == lifetime

    monkeypatch.setattr(module.random, "uniform", lambda *bounds: bounds[drawn])
    play(scenario, Limits(request_cap_s=52))


@pytest.mark.parametrize(("draining", "least", "most"), [(False, 500, 3000), (True, 2000, 5000)])
def test_streams_come_back_at_random_within_a_range(draining: bool, least: int, most: int) -> None:
    async def scenario(stage: Stage) -> None:
        stage.hub._context.draining = draining
        said = []
        for _ in range(100):
            client = await stage.subscribed("eventsource-json", "a")
            said.append((await client.event()).retry or 0)
        assert least <= min(said) < least + 500
        assert most - 500 < max(said) <= most

    play(scenario)


def test_a_stream_that_rotates_may_come_back_sooner_than_one_that_was_lost() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        clients = [await stage.subscribed("websocket-json", "a") for _ in range(50)]
        await stage.hub.let_pass(20)
        said = [(await client.until("rotate")).retry or 0 for client in clients]
        assert min(said) >= 50
        assert max(said) <= 300
        assert max(said) - min(said) > 100

    play(scenario, Limits(request_cap_s=22))


def test_a_heartbeat_in_the_turn_of_a_message_names_no_cursor_before_that_of_the_last_one() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        client = await stage.subscribed("websocket-json", "a")
        other = await stage.publish("another")
        await stage.hub.let_pass(5)
        assert (await client.until("ping")).cursor == other
        await stage.store.publish(Message("a", b"x"))
        stage.hub._loop.tick(stage.hub.timers.now + 5)
        heartbeat, message = await client.event(), await client.event()
        assert (heartbeat.kind, heartbeat.cursor, message.kind) == ("ping", other, "message")

    play(scenario, Limits(heartbeat_s=5))


def test_a_client_that_does_not_read_is_not_told_to_rotate_but_cut_off() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        await stage.subscribed("websocket-json", "a")
        (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
        head = 0
        while not isinstance(connection.unsent, memoryview):
            head = await stage.store.publish(Message("a", b"x" * 60_000))
            await stage.hub.until_quiet(head)
        await stage.hub.let_pass(20)
        assert connection.state is State.CLOSED
        assert stage.hub.metrics.unsubscribes == Counter({"rotated": 1})

    play(scenario, Limits(request_cap_s=22))


def test_a_client_that_takes_nothing_is_cut_off_after_the_write_timeout_and_not_before() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        await stage.subscribed("websocket-json", "a")
        (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
        while not isinstance(connection.unsent, memoryview):
            await stage.hub.until_quiet(await stage.store.publish(Message("a", b"x" * 60_000)))
        waits = 0
        while connection.state is State.STREAMING:
            await stage.hub.let_pass()
            waits += 1
        assert 30 <= waits <= 30 + 6  # looked at once per heartbeat
        assert stage.hub.metrics.unsubscribes == Counter({"write_timeout": 1})

    play(scenario, Limits(write_s=30, heartbeat_s=5))


def test_a_client_that_takes_a_little_now_and_then_is_not_cut_off() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        client = await stage.subscribed("websocket-json", "a")
        (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
        await stage.hub.until_quiet(await stage.store.publish(Message("a", b"x" * 32 * 1024 * 1024)))
        for _ in range(3):
            await stage.hub.let_pass(29)
            left = connection.unsent
            assert left
            while connection.unsent is left:
                await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16)
                await stage.hub.until_idle()
        await stage.hub.let_pass(29)
        assert connection.state is State.STREAMING
        assert connection.unsent

    play(scenario, Limits(write_s=30, heartbeat_s=5))


@pytest.mark.parametrize("wire", ["websocket-json", "eventsource-json"])
def test_a_client_that_does_not_answer_the_end_is_let_go_after_the_close_timeout(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        (connection,) = await streams(stage, wire, 1)
        await stage.hub.let_pass(connection.expires_at - stage.hub.timers.now)
        assert connection.state is State.CLOSING
        await stage.hub.let_pass(1)
        assert connection.state is State.CLOSING
        await stage.hub.let_pass(1)
        assert connection.state is State.CLOSED
        assert stage.hub.metrics.unsubscribes == Counter({"rotated": 1})

    play(scenario, Limits(request_cap_s=22))


# A heartbeat of the client's own, and streams without control events


@pytest.mark.parametrize(
    ("asked", "told"),
    [("5", 5.0), ("5.9", 5.0), ("1", 2.0), ("0", 2.0), ("600", 15.0), ("15", 15.0)],
)
def test_a_client_may_ask_for_a_shorter_heartbeat(shared_server: Server, asked: str, told: float) -> None:
    with shared_server.connect() as client:
        assert client.upgrade(f"/channels/short?format=json&heartbeat={asked}") == 101
        assert said(client)["heartbeat"] == told


def test_a_shorter_heartbeat_is_kept_and_is_nobody_elses() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        short = await stage.subscribed("websocket-json", "a", heartbeat="3")
        usual = await stage.subscribed("websocket-json", "a")
        for client in (short, usual):
            await client.until("open")
        for _ in range(3):
            await stage.hub.let_pass(3)
            await short.until("ping")
        await stage.publish("a")
        await short.until("message")
        assert (await usual.event()).kind == "message", "in 9 s there was no ping"

    play(scenario)


def test_a_heartbeat_that_is_no_number_is_refused(shared_client: Client) -> None:
    shared_client.request("GET", "/channels/short?transport=eventsource&heartbeat=often")
    assert shared_client.problem()[::2] == (400, "heartbeat='often': use a number of seconds, 0 or more")


@pytest.mark.parametrize(("text_format", "told"), [("text", "UPDATED"), ("json", "reset")])
def test_without_controls_an_event_stream_has_ids_and_messages_and_says_what_was_lost(
    shared_server: Server, text_format: str, told: str
) -> None:
    cursor = shared_server.publish("bare", "older")["id"]
    with shared_server.connect() as client:
        query = f"transport=eventsource&format={text_format}&controls=0"
        client.request("GET", f"/channels/bare?{query}&cursor=00000000-000000000000007")
        assert client.head()[0] == 200
        opened = client.event()
        assert (set(opened), opened["id"]) == ({"retry", "id"}, "00000000-000000000000000")
        lost = client.event()
        assert set(lost) == {"id", "data"}
        assert lost["id"] == cursor
        assert lost["data"] == told if text_format == "text" else json.loads(lost["data"])["control"] == told
        new = shared_server.publish("bare", "new")["id"]
        event = client.event()
        assert (event["id"], "new" in event["data"]) == (new, True)
        assert "event" not in event


def test_without_controls_a_ping_is_an_id(shared_server: Server) -> None:
    cursor = shared_server.publish("bare", "older")["id"]
    with shared_server.connect() as client:
        client.request("GET", "/channels/bare?transport=eventsource&controls=0")
        client.head()
        assert client.event()["id"] == cursor
        assert client.event() == {"id": cursor}


@pytest.mark.parametrize("last", ["many", "-1", "1e3", "٣", "9" * 10])
def test_the_number_of_last_messages_is_a_whole_number(shared_client: Client, last: str) -> None:
    shared_client.request("GET", f"/channels/bare?cursor=earliest&last={quote(last)}")
    status, _, detail = shared_client.problem()
    assert status == 400
    assert detail.endswith("use a whole number of messages, of at most 9 digits")


def test_controls_is_0_or_1(shared_client: Client) -> None:
    shared_client.request("GET", "/channels/bare?transport=eventsource&controls=no")
    assert shared_client.problem()[::2] == (400, "controls='no': use 0 or 1")
