from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.client import listener, transports
from pushcompat.client.dial import Endpoint, _tls
from pushcompat.client.listener import Listener, follow
from pushcompat.client.transports import TRANSPORTS, EventParser, Refused, Subscription, Watch

from ..harness import MS, PATIENCE_S, Server
from ..proxy import Proxy
from ..stub import CERTIFICATE, Script, Talk, answer, json_says, refuses, says, server_tls, silent, stub

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)


def cursor(number: int, epoch: str = "e0000000") -> str:
    return f"{epoch}-{number:015d}"


def message(number: int, data: object = "x", **more: str) -> bytes:
    document = {"id": cursor(number, **more), "channel": "a", "data": data, "time": 0}
    return json.dumps(document, separators=(",", ":")).encode()


def control(name: str, number: int, epoch: str = "e0000000", **more: object) -> bytes:
    document = {"control": name, "cursor": cursor(number, epoch), **more}
    return json.dumps(document, separators=(",", ":")).encode()


def opened(number: int, heartbeat: float = 15, lifetime: float | None = None, epoch: str = "e0000000") -> bytes:
    return control("open", number, epoch, heartbeat=heartbeat, lifetime=lifetime)


# Each of these makes a script: it says the documents over its transport, and what comes then


def over_websocket(*documents: bytes, then: Script | None = None) -> Script:
    def script(talk: Talk) -> None:
        shake_hands(talk)
        for document in documents:
            talk.send(frame(0x81, document))
        if then is not None:
            then(talk)

    return script


def shake_hands(talk: Talk) -> None:
    talk.request()
    guid = talk.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(guid.encode()).digest()).decode()
    talk.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )


def frame(first: int, payload: bytes) -> bytes:
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return bytes([first]) + length + payload


def over_eventsource(*documents: bytes, then: Script | None = None) -> Script:
    def script(talk: Talk) -> None:
        talk.request()
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 5\n")
        for document in documents:
            talk.send(b"id: x\ndata: " + document + b"\n\n")
        if then is not None:
            then(talk)

    return script


def over_longpoll(*documents: bytes, then: Script | None = None) -> Script:
    """One answer for each: a message, or what a poll has for the control message."""

    def script(talk: Talk) -> None:
        for document in documents:
            talk.request()
            talk.send(answer(200, _as_poll(json.loads(document), document)))
        if then is not None:
            then(talk)

    return script


def _as_poll(said: dict[str, Any], document: bytes) -> bytes:
    if "control" not in said:
        return b'{"cursor":"%b","messages":[%b]}' % (said["id"].encode(), document)
    poll = {"cursor": said["cursor"], "messages": []}
    if said["control"] == "reset":
        poll["reset"] = said["channels"]
    if said["control"] == "rotate":
        poll["retry"] = said["retry"]
    return json.dumps(poll).encode()


OVER: dict[str, Callable[..., Script]] = {
    "websocket": over_websocket,
    "eventsource": over_eventsource,
    "longpoll": over_longpoll,
}


def hold(talk: Talk) -> None:
    talk.wait_for_end()


class Hurried(io.BytesIO):
    """After the first line, the listener's time is up soon."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def write(self, data: Any) -> int:
        self._watch.deadline = time.monotonic() + 50 * MS
        return super().write(data)


class Heard:
    """What a listener wrote, and with which exit code it ended."""

    def __init__(
        self,
        url: str,
        names: Sequence[str] = tuple(TRANSPORTS),
        *,
        count: int | None = None,
        timeout: float = PATIENCE_S,
        start: str = "",
        token: str | None = None,
        hurry: bool = False,
    ) -> None:
        self.notes: list[str] = []
        watch = Watch(time.monotonic() + timeout)
        out = Hurried(watch) if hurry else io.BytesIO()
        subscription = Subscription(Endpoint.parse(url), ["a", "b"], watch, token, start)
        self.code = follow(Listener(subscription, names, self.notes.append), count, out)
        self.lines = out.getvalue().splitlines()
        self.ids = [int(json.loads(line)["id"][-3:]) for line in self.lines if b'"id"' in line]


def query(talk: Talk) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(talk.target).query).items()}


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """No backoff."""
    monkeypatch.setattr(listener, "backoff_s", lambda failures: 0.0)


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(failures: int) -> float:
        raise AssertionError("nobody asked for a backoff")

    monkeypatch.setattr(listener, "backoff_s", fail)


# What is written


@every_transport
def test_messages_are_written_as_they_were_received_a_line_each(transport: str) -> None:
    odd = b'{"id":"%b","channel":"a","data":{"n": 1.10,\n"big":1e400, "u":"\xc3\xbc"},"time":0}' % cursor(2).encode()
    if transport == "eventsource":
        script = over_eventsource(opened(0), message(1), odd.replace(b"\n", b"\ndata: "), then=hold)
    else:
        script = OVER[transport](opened(0), message(1), odd, then=hold)
    with stub(script) as server:
        heard = Heard(server.url, [transport], count=2)
    assert heard.lines == [message(1), odd.replace(b"\n", b" ")]
    assert heard.code == 0


@every_transport
def test_a_reset_is_written_because_a_script_must_know(transport: str, prompt: None) -> None:
    reset = control("reset", 7, "e1111111", channels=["a"])
    with stub(OVER[transport](opened(0), reset, message(8, epoch="e1111111"), then=hold)) as server:
        heard = Heard(server.url, [transport], count=1)
    assert [json.loads(line) for line in heard.lines[:1]] == [json.loads(reset)]
    assert heard.ids == [8]


@every_transport
def test_other_control_messages_are_not_written(transport: str) -> None:
    script = OVER[transport](opened(0), control("ping", 0), control("news-of-2030", 0), message(1), then=hold)
    with stub(script) as server:
        assert Heard(server.url, [transport], count=1).lines == [message(1)]


def test_a_message_in_fragments_between_pings_is_one_message() -> None:
    whole = message(1, "x" * 100)

    def script(talk: Talk) -> None:
        shake_hands(talk)
        for data in (frame(0x01, whole[:50]), frame(0x89, b"ping"), frame(0x00, whole[50:60]), frame(0x80, whole[60:])):
            talk.send(data)
        hold(talk)

    with stub(script) as server:
        assert Heard(server.url, ["websocket"], count=1).lines == [whole]


# What is asked for


@every_transport
def test_the_request_names_channels_transport_format_client_and_start(transport: str) -> None:
    with stub(OVER[transport](opened(5), message(6), then=hold)) as server:
        Heard(f"{server.url}/push/", [transport], count=1, start="earliest", token="s3cret")
    (talk,) = server.talks
    assert urlsplit(talk.target).path == "/push/channels/a,b"
    asked = query(talk)
    assert (asked["transport"], asked["format"]) == (transport, "json")
    assert asked["cursor"] in ("earliest", cursor(5))  # a poll asks again
    assert len(asked["client"]) == 16
    assert talk.headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in talk.target


# The cursor


@every_transport
def test_after_a_cut_it_goes_on_behind_the_last_message(transport: str, prompt: None) -> None:
    with stub(
        OVER[transport](opened(0), message(1), message(2)),
        OVER[transport](opened(2), message(2), message(3), then=hold),
    ) as server:
        heard = Heard(server.url, [transport], count=3)
    assert heard.ids == [1, 2, 3]
    assert query(server.talks[1])["cursor"] in (cursor(2), cursor(3))
    assert query(server.talks[0])["client"] == query(server.talks[1])["client"]


@every_transport
def test_what_is_not_greater_than_the_cursor_is_dropped(transport: str) -> None:
    numbers = (1, 2, 2, 1, 3)
    with stub(OVER[transport](opened(0), *map(message, numbers), then=hold)) as server:
        assert Heard(server.url, [transport], count=3).ids == [1, 2, 3]


@every_transport
def test_the_opening_cursor_counts_when_there_is_none_yet(transport: str, prompt: None) -> None:
    with stub(OVER[transport](opened(5)), OVER[transport](message(6), then=hold)) as server:
        Heard(server.url, [transport], count=1)
    assert query(server.talks[1])["cursor"] == cursor(5)


@every_transport
def test_a_quiet_channel_keeps_a_young_cursor(transport: str, prompt: None) -> None:
    with stub(
        OVER[transport](opened(5), control("ping", 9), control("ping", 8)), OVER[transport](message(10), then=hold)
    ) as server:
        Heard(server.url, [transport], count=1)
    assert query(server.talks[1])["cursor"] == cursor(9)


@pytest.mark.parametrize("transport", ["websocket", "eventsource"])
def test_another_epoch_is_believed_only_with_its_reset(transport: str, prompt: None) -> None:
    strange = "e1111111"
    with stub(
        OVER[transport](opened(3, epoch=strange), control("ping", 3, strange)),
        OVER[transport](control("reset", 3, strange, channels=["a"])),
        OVER[transport](message(4, epoch=strange), then=hold),
    ) as server:
        Heard(server.url, [transport], count=1, start=cursor(2))
    assert [query(talk)["cursor"] for talk in server.talks] == [cursor(2), cursor(2), cursor(3, strange)]


# Coming back


@every_transport
def test_rotation_comes_back_when_the_server_says_without_backoff(transport: str, no_backoff: None) -> None:
    with stub(
        OVER[transport](opened(0), control("rotate", 4, retry=1)), OVER[transport](message(5), then=hold)
    ) as server:
        heard = Heard(server.url, [transport], count=1)
    assert query(server.talks[1])["cursor"] == cursor(4)
    assert "back in 0.0 s" in heard.notes


@pytest.mark.parametrize("names", [["websocket"], ["eventsource"], ["longpoll"], list(TRANSPORTS)])
def test_a_busy_server_says_when_to_come_back(names: list[str], prompt: None, monkeypatch: Any) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with stub(refuses(503, Retry_After="7"), OVER[names[0]](message(1), then=hold)) as server:
        assert Heard(server.url, names, count=1).ids == [1]
    assert pauses == [7]


def test_a_server_that_is_restarted_is_met_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def at_once(failures: int) -> float:
        asked.append(failures)
        return 0.0

    monkeypatch.setattr(listener, "backoff_s", at_once)
    bad = refuses(502)
    with stub(over_websocket(opened(0)), *[bad] * 6, over_websocket(message(1), then=hold)) as server:
        assert Heard(server.url, count=1).ids == [1]
    assert asked == [0, 1, 2]  # rounds, not tries


def test_a_message_without_an_id_is_not_for_us() -> None:
    with stub(over_websocket(b"{}", b'{"hello":"world"}', message(1), then=hold)) as server:
        assert Heard(server.url, ["websocket"], count=1).lines == [message(1)]


def test_a_listener_that_has_enough_says_goodbye() -> None:
    said: list[bytes] = []

    def script(talk: Talk) -> None:
        over_websocket(message(1))(talk)
        said.append(talk.file.read())

    with stub(script) as server:
        Heard(server.url, ["websocket"], count=1)
    assert said[0][0] == 0x88


@every_transport
def test_silence_after_the_heartbeat_is_taken_for_death(transport: str, prompt: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(transports, "POLL_S", 0.0)
    monkeypatch.setattr(transports, "_POLL_SLACK_S", 100 * MS)
    quiet = OVER[transport](opened(0, heartbeat=50 * MS), then=hold)
    with stub(quiet, OVER[transport](message(1), then=hold)) as server:
        assert Heard(server.url, [transport], count=1).ids == [1]
    assert len(server.talks) == 2


@pytest.mark.parametrize("transport", ["websocket", "eventsource"])
def test_a_stream_that_outlives_its_lifetime_is_taken_for_dead(transport: str, prompt: None) -> None:
    overdue = OVER[transport](opened(0, heartbeat=1000, lifetime=-4.9), then=hold)
    with stub(overdue, OVER[transport](message(1), then=hold)) as server:
        assert Heard(server.url, [transport], count=1).ids == [1]


@every_transport
def test_what_is_no_json_cuts_the_connection(transport: str, prompt: None) -> None:
    garbage = says(answer(200, b"{")) if transport == "longpoll" else OVER[transport](opened(0), b"{")
    with stub(garbage, OVER[transport](message(1), then=hold)) as server:
        assert Heard(server.url, [transport], count=1).ids == [1]


def test_backoff_has_full_jitter_from_half_a_second_to_thirty() -> None:
    for failures, longest in ((0, 0.5), (1, 1), (3, 4), (6, 30), (10_000, 30)):
        waits = [listener.backoff_s(failures) for _ in range(500)]
        assert 0 <= min(waits) < longest / 10
        assert longest * 0.9 < max(waits) <= longest


# Which transport


def test_where_websocket_is_refused_it_falls_back(prompt: None) -> None:
    blocked = says(answer(403, b"<html>blocked</html>"))
    with stub(blocked, over_eventsource(opened(0), message(1), then=hold)) as server:
        assert Heard(server.url, count=1).ids == [1]
    assert [query(talk)["transport"] for talk in server.talks] == ["websocket", "eventsource"]


def test_where_a_stream_delivers_nothing_it_falls_back_to_polls(monkeypatch: pytest.MonkeyPatch, prompt: None) -> None:
    monkeypatch.setattr(listener, "OPEN_S", 100 * MS)
    with stub(over_websocket(then=hold), over_eventsource(then=hold), over_longpoll(opened(0), message(1))) as server:
        assert Heard(server.url, count=1).ids == [1]
    assert [query(talk)["transport"] for talk in server.talks][:2] == ["websocket", "eventsource"]


def test_what_works_is_kept_and_after_an_outage_the_best_has_its_turn_again(prompt: None) -> None:
    bad = refuses(502)
    with stub(
        bad,
        over_eventsource(opened(0), message(1)),
        over_eventsource(opened(1), message(2)),
        bad,  # eventsource
        bad,  # longpoll
        over_websocket(opened(2), message(3), then=hold),
    ) as server:
        assert Heard(server.url, count=3).ids == [1, 2, 3]
    used = [query(talk)["transport"] for talk in server.talks]
    assert used == ["websocket", "eventsource", "eventsource", "eventsource", "longpoll", "websocket"]


# Giving up


@pytest.mark.parametrize("transport", ["eventsource", "longpoll"])
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_ends_it_with_what_the_server_says(transport: str, status: int) -> None:
    with (
        stub(refuses(status, "ask for another channel")) as server,
        pytest.raises(Refused, match="ask for another channel"),
    ):
        Heard(server.url, [transport])
    assert len(server.talks) == 1


@pytest.mark.parametrize("names", [["websocket"], list(TRANSPORTS)])
@pytest.mark.parametrize("code", [4400, 4401, 4403])
def test_a_websocket_that_is_closed_for_good_ends_it(code: int, names: list[str]) -> None:
    close = frame(0x88, code.to_bytes(2, "big") + b"the token has expired")
    with (
        stub(over_websocket(then=lambda talk: talk.send(close))) as server,
        pytest.raises(Refused, match="the token has expired"),
    ):
        Heard(server.url, names)


@pytest.mark.parametrize("code", [1001, 1012, 4000, 4100])
def test_any_other_close_is_a_reason_to_come_back(code: int, prompt: None) -> None:
    close = frame(0x88, code.to_bytes(2, "big"))
    with stub(
        over_websocket(opened(0), then=lambda talk: talk.send(close)), over_websocket(message(1), then=hold)
    ) as server:
        assert Heard(server.url, ["websocket"], count=1).ids == [1]


def test_a_handshake_that_is_refused_ends_it_where_websocket_is_all_that_may_be_used() -> None:
    with (
        stub(refuses(426, "a proxy took the Upgrade header")) as server,
        pytest.raises(Refused, match="a proxy took the Upgrade header"),
    ):
        Heard(server.url, ["websocket"])


@every_transport
def test_a_server_with_a_certificate_of_nobody_ends_it(transport: str) -> None:
    with stub(silent, tls=server_tls()) as server, pytest.raises(Refused, match="certificate is not valid: self"):
        Heard(server.url, [transport])
    assert server.talks == []


@pytest.mark.parametrize("transport", ["eventsource", "longpoll"])
def test_a_redirect_is_not_followed(transport: str) -> None:
    with (
        stub(json_says(302, {}, Location="http://elsewhere/")) as server,
        pytest.raises(Refused, match="redirects to http://elsewhere/"),
    ):
        Heard(server.url, [transport], token="s3cret")


@every_transport
def test_time_that_is_up_ends_it_with_0_or_without_the_count_1(transport: str) -> None:
    with stub(OVER[transport](opened(0), message(1), then=hold)) as server:
        assert Heard(server.url, [transport], hurry=True).code == 0
    with stub(OVER[transport](opened(0), message(1), then=hold)) as server:
        assert Heard(server.url, [transport], hurry=True, count=2).code == 1
    with stub(silent) as server:
        assert Heard(server.url, [transport], timeout=50 * MS).code == 1


@every_transport
def test_it_speaks_tls(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    _tls.cache_clear()
    try:
        with stub(OVER[transport](opened(0), message(1), then=hold), tls=server_tls()) as server:
            assert Heard(server.url, [transport], count=1).ids == [1]
    finally:
        _tls.cache_clear()


# The event stream

BLOCKS = st.lists(st.sampled_from([b"data: x", b"data:y", b"data", b": note", b"id: 1", b"event: e", b"", b"data:  z"]))


@given(BLOCKS, st.sampled_from([b"\n", b"\r", b"\r\n"]), st.data())
def test_events_are_the_same_however_the_stream_is_cut(lines: list[bytes], end: bytes, data: st.DataObject) -> None:
    stream = b"".join(line + end for line in lines)
    whole = list(EventParser().feed(stream))
    parser, rest = EventParser(), stream
    parts: list[bytes] = []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        parts += parser.feed(rest[:size])
        rest = rest[size:]
    assert parts == whole == list(EventParser().feed(stream.replace(end, b"\n")))


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data:a\r\rdata:b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"data:  a\n\n", [b" a"]),
        (b"id: 1\nretry: 5\n\n", []),
        (b": note\n\ndatabase: no\n\n", []),
        (b"event: control\nid: 7\ndata: {}\n\ndata: cut off", [b"{}"]),
    ],
)
def test_an_event_is_its_data(stream: bytes, events: list[bytes]) -> None:
    assert list(EventParser().feed(stream)) == events


# The real server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, "--drain-time", "0")
    yield server
    server.stop()


class Following:
    """A listener in a thread, which can be waited for."""

    def __init__(self, url: str, names: Sequence[str], count: int) -> None:
        self.heard: list[Heard] = []
        self.thread = threading.Thread(target=lambda: self.heard.append(Heard(url, names, count=count)))
        self.thread.start()

    def documents(self) -> list[dict[str, Any]]:
        self.thread.join(PATIENCE_S)
        return [json.loads(line) for line in self.heard[0].lines]


def wait_for_subscriber(server: Server, transport: str) -> None:
    server.wait_for_metric(f'pushcompat_subscriptions{{transport="{transport}"}}', 1)


@every_transport
def test_it_follows_the_server_through_a_cut(server: Server, transport: str, prompt: None) -> None:
    with Proxy(server.port) as proxy:
        following = Following(proxy.url, [transport], 4)
        wait_for_subscriber(server, transport)
        server.publish("a", "one")
        server.publish("b", "two")
        proxy.cut()
        server.publish("a", "three")
        proxy.mend()
        server.publish("c", "not for us")
        server.publish("a", "four")
        assert [document["data"] for document in following.documents()] == ["one", "two", "three", "four"]


@every_transport
def test_it_follows_through_a_restart_and_says_that_history_is_gone(
    tmp_path: Path, transport: str, prompt: None
) -> None:
    first = Server(tmp_path, "--drain-time", "0")
    following = Following(first.url, [transport], 2)
    wait_for_subscriber(first, transport)
    first.publish("a", "one")
    wait_for_subscriber(first, transport)
    assert first.stop() == 0
    second = Server(tmp_path, "--drain-time", "0", "--port", str(first.port))
    try:
        wait_for_subscriber(second, transport)
        second.publish("a", "two")
        documents = following.documents()
    finally:
        second.stop()
    assert [document.get("data", document.get("control")) for document in documents] == ["one", "reset", "two"]
    assert documents[1]["channels"] == ["a", "b"]


def test_it_takes_the_best_transport(server: Server) -> None:
    following = Following(server.url, list(TRANSPORTS), 1)
    wait_for_subscriber(server, "websocket")
    server.publish("b", "x")
    assert [document["data"] for document in following.documents()] == ["x"]
