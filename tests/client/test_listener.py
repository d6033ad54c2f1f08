from __future__ import annotations

import base64
import hashlib
import io
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.client import listener, transports
from pushcompat.client.dial import Endpoint, default_tls
from pushcompat.client.listener import Listener, follow
from pushcompat.client.position import Position
from pushcompat.client.transports import TRANSPORTS, EventParser, ListenRefused, Subscription, Watchdog

from ..harness import MS, PATIENCE_S, Server
from ..proxy import Proxy
from ..stub import (
    CERTIFICATE,
    Script,
    Talk,
    answer,
    chunk,
    cut_short,
    informed,
    json_says,
    refuses,
    says,
    server_tls,
    silent,
    stub,
)

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
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7f" + len(payload).to_bytes(8, "big")
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


def over_chunks(*documents: bytes, then: Script | None = None, size: int = 1_000_000) -> Script:
    """An event stream in chunks of this size; ``then`` may send the last one."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for document in documents:
            event = b"data: " + document + b"\n\n"
            for begin in range(0, len(event), size):
                talk.send(chunk(event[begin : begin + size]))
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
    poll = {"cursor": said.get("cursor", ""), "messages": []}
    if said["control"] == "reset":
        poll |= {"reset": said["channels"], **({"spread": said["spread"]} if "spread" in said else {})}
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


class Lines(io.BytesIO):
    """What a listener writes can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.Queue[bytes] = queue.Queue()

    def write(self, data: Any) -> int:
        self.lines.put(data)
        return super().write(data)

    def next(self) -> bytes:
        return self.lines.get(timeout=PATIENCE_S)


class Hurried(io.BytesIO):
    """After the first line, the listener's time is up soon."""

    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def write(self, data: Any) -> int:
        self._watchdog.deadline = time.monotonic() + 50 * MS
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
        token: str | Callable[[], str] | None = None,
        hurry: bool = False,
        out: io.BytesIO | None = None,
        position: Position | None = None,
    ) -> None:
        self.notes: list[str] = []
        watchdog = Watchdog(time.monotonic() + timeout)
        out = out or (Hurried(watchdog) if hurry else io.BytesIO())
        subscription = Subscription(Endpoint.parse(url), ["a", "b"], watchdog, token, position or Position(start))
        self.code = follow(Listener(subscription, names, self.notes.append), count, out)
        self.lines = out.getvalue().splitlines()
        self.ids = [int(json.loads(line)["id"][-3:]) for line in self.lines if b'"id"' in line]


def query(talk: Talk) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(talk.target).query).items()}


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for before a reconnection, and a poll may be answered at once."""
    monkeypatch.setattr(listener, "backoff_s", lambda failures: 0.0)
    monkeypatch.setattr(listener, "_MIN_ROTATE_S", 0.0)
    monkeypatch.setattr(transports, "_AT_ONCE_S", 0.0)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are recorded instead of made; each backoff is the longest possible."""
    made: list[float] = []
    monkeypatch.setattr("time.sleep", made.append)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    return made


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(failures: int) -> float:
        raise AssertionError("nobody asked for a backoff")

    monkeypatch.setattr(listener, "backoff_s", fail)
    monkeypatch.setattr(listener, "_SHORT_S", 0.0)  # these connections have lived long enough


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
    strange = control("news-of-2030", 2) if transport == "longpoll" else b'{"control":"news-of-2030"}'
    with stub(OVER[transport](opened(0), control("ping", 1), strange, message(3), then=hold)) as server:
        assert Heard(server.url, [transport], count=1).lines == [message(3)]


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
def test_messages_not_after_the_cursor_are_dropped(transport: str, prompt: None) -> None:
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


# Earliest


def resumed(talk: Talk) -> str:
    return query(talk).get("cursor", "")


@pytest.mark.parametrize("transport", ["websocket", "eventsource"])
@pytest.mark.parametrize(
    ("first", "asked"),
    [
        ([opened(5)], "earliest"),
        ([opened(5), message(3)], "earliest"),
        ([opened(5), control("ping", 4)], "earliest"),
        ([opened(5), message(3), message(5)], cursor(5)),
        ([opened(5), message(3), message(7)], cursor(7)),
        ([opened(5), message(3), control("ping", 5)], cursor(5)),
        ([b'{"control":"open","cursor":"earliest","heartbeat":15}'], "earliest"),
        ([b'{"control":"open","cursor":"earliest","heartbeat":15}', message(3)], "earliest"),
        (
            [b'{"control":"open","cursor":"earliest","heartbeat":15}', b'{"control":"ping","cursor":"earliest"}'],
            "earliest",
        ),
        ([b'{"control":"open","cursor":"earliest","heartbeat":15}', message(3), control("ping", 4)], cursor(4)),
        ([opened(5), message(3), control("reset", 9, channels=["a"])], cursor(9)),
    ],
)
def test_earliest_is_asked_for_until_a_position_can_be_resumed_from(
    transport: str, first: list[bytes], asked: str, prompt: None
) -> None:
    received = [json.loads(document)["id"] for document in first if b'"id"' in document]
    scripts = [OVER[transport](*first), OVER[transport](opened(5), *first[1:2], message(20), then=hold)]
    with stub(*scripts) as server:
        heard = Heard(server.url, [transport], count=len(received) + 1, start="earliest")
    assert [resumed(talk) for talk in server.talks] == ["earliest", asked]
    assert len(heard.ids) == len(set(heard.ids)) == len(received) + 1  # repeats are dropped


def test_polls_ask_for_earliest_until_the_server_names_a_position(prompt: None) -> None:
    def poll(cursor: str, *messages: bytes) -> bytes:
        return b'{"cursor":"%b","messages":[%b]}' % (cursor.encode(), b",".join(messages))

    asked: list[str] = []

    def script(talk: Talk) -> None:
        for body in (
            poll("earliest", message(1), message(2)),
            poll("earliest", message(1), message(2), message(3)),
            poll("earliest"),
            poll(cursor(6), message(2), message(4)),
            poll(cursor(7), message(7)),
        ):
            talk.request()
            asked.append(resumed(talk))
            talk.send(answer(200, body))
        hold(talk)

    with stub(script) as server:
        assert Heard(server.url, ["longpoll"], count=5, start="earliest").ids == [1, 2, 3, 4, 7]
    assert asked == ["earliest"] * 4 + [cursor(6)]


def test_the_opening_cursor_of_a_stream_means_nothing_to_the_poll_that_follows(prompt: None) -> None:
    polls = [
        b'{"cursor":"earliest","messages":[%b]}' % message(7),
        b'{"cursor":"%b","messages":[]}' % cursor(9).encode(),
    ]

    def polled(talk: Talk) -> None:
        for body in polls:
            talk.request()
            asked.append(resumed(talk))
            talk.send(answer(200, body))
        over_longpoll(message(10), then=hold)(talk)

    asked: list[str] = []
    with stub(over_eventsource(opened(5), message(3)), refuses(502), polled) as server:
        heard = Heard(server.url, ["eventsource", "longpoll"], count=3, start="earliest")
    assert heard.ids == [3, 7, 10]
    assert asked == ["earliest", "earliest"]


@every_transport
def test_earliest_of_another_log_is_not_taken_for_the_same_one(transport: str, prompt: None) -> None:
    other = "e1111111"
    named = [opened(9, epoch=other)] if transport != "longpoll" else []
    earliest = b'{"control":"open","cursor":"earliest","heartbeat":15}'
    if transport == "longpoll":
        first = says(answer(200, b'{"cursor":"earliest","messages":[%b]}' % message(3)))
    else:
        first = OVER[transport](earliest, message(3))
    with stub(
        first,
        OVER[transport](*named, message(8, epoch=other), then=hold),
        OVER[transport](control("reset", 9, other, channels=["a"]), message(10, epoch=other), then=hold),
    ) as server:
        heard = Heard(server.url, [transport], count=2, start="earliest")
    assert [json.loads(line).get("control") for line in heard.lines] == [None, "reset", None]
    assert [resumed(talk) for talk in server.talks][:2] == ["earliest", "earliest"]
    assert heard.ids == [3, 10]


# Coming back


@every_transport
def test_rotation_comes_back_when_the_server_says_without_backoff(transport: str, no_backoff: None) -> None:
    with stub(
        OVER[transport](opened(0), control("rotate", 4, retry=1)), OVER[transport](message(5), then=hold)
    ) as server:
        heard = Heard(server.url, [transport], count=1)
    assert query(server.talks[1])["cursor"] == cursor(4)
    assert "reconnecting in 0.1 s" in heard.notes


@every_transport
def test_rotations_without_a_pause_are_followed_with_backoff(transport: str, pauses: list[float]) -> None:
    rotating = OVER[transport](control("rotate", 4, retry=0))
    with stub(*[rotating] * 8, OVER[transport](message(5), then=hold)) as server:
        assert Heard(server.url, [transport], count=1, timeout=100).ids == [5]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]


@every_transport
def test_a_rotation_that_asks_for_more_than_the_backoff_gets_it(transport: str, pauses: list[float]) -> None:
    rotating = OVER[transport](control("rotate", 4, retry=2000))
    with stub(*[rotating] * 4, OVER[transport](message(5), then=hold)) as server:
        assert Heard(server.url, [transport], count=1, timeout=100).ids == [5]
    assert pauses == [2, 2, 2, 4]


@every_transport
def test_backoff_begins_anew_after_a_connection_that_lasted(
    transport: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_LASTING_S", 0.0)
    with stub(
        *[OVER[transport](opened(number)) for number in range(3)], OVER[transport](message(5), then=hold)
    ) as server:
        assert Heard(server.url, [transport], count=1, timeout=100).ids == [5]
    assert pauses == [0.5, 0.5, 0.5]


@every_transport
def test_a_rotation_of_a_connection_that_lived_is_followed_after_a_tenth_of_a_second(
    transport: str, pauses: list[float], no_backoff: None
) -> None:
    rotations = [OVER[transport](control("rotate", 4, retry=retry)) for retry in (0, 1, -1, 250, 1e300)]
    with stub(*rotations, OVER[transport](message(5), then=hold)) as server:
        assert Heard(server.url, [transport], count=1, timeout=10_000).ids == [5]
    assert pauses == [0.1, 0.1, 0.1, 0.25, 3600]


AT_ONCE = {
    "the same": [b'{"cursor":"%b","messages":[]}' % cursor(5).encode()],
    "an old message": [b'{"cursor":"%b","messages":[%b]}' % (cursor(5).encode(), message(5))],
    "an old reset": [b'{"cursor":"%b","messages":[],"reset":["a"]}' % cursor(5).encode()],
    "another log": [b'{"cursor":"%b","messages":[]}' % cursor(5, "e1111111").encode()],
    "two logs": [
        b'{"cursor":"%b","messages":[],"reset":["a"]}' % cursor(5, f"e{n}").encode() for n in (1111111, 2222222)
    ],
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_polls_that_are_answered_at_once_with_nothing_new_are_failures(name: str, pauses: list[float]) -> None:
    polls = 0

    def script(talk: Talk) -> None:
        nonlocal polls
        while True:
            talk.request()
            talk.send(answer(200, AT_ONCE[name][polls % len(AT_ONCE[name])]))
            polls += 1

    with stub(*[script] * 7, over_longpoll(message(9, epoch="e3333333"), then=hold)) as server:
        assert Heard(server.url, ["longpoll"], count=1, start=cursor(5), timeout=100).ids == [9]
    assert polls <= 7 * 2
    assert pauses == [1.5, 2, 3, 5, 9, 17, 31]


def test_a_first_poll_that_names_no_cursor_is_a_failure_too(pauses: list[float]) -> None:
    nothing = says(answer(200, b'{"cursor":"","messages":[]}'))
    with stub(nothing, nothing, over_longpoll(message(1), then=hold)) as server:
        assert Heard(server.url, ["longpoll"], count=1).ids == [1]
    assert pauses == [0.5, 1]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("names", [["websocket"], ["eventsource"], ["longpoll"], list(TRANSPORTS)])
def test_a_busy_server_says_when_to_come_back(names: list[str], status: int, pauses: list[float]) -> None:
    with stub(
        refuses(status, Retry_After="7"),
        refuses(status, Retry_After="9" * 20),
        refuses(status, Retry_After="9" * 400),
        OVER[names[0]](message(1), then=hold),
    ) as server:
        assert Heard(server.url, names, count=1, timeout=10_000).ids == [1]
    assert pauses == [7.5, 3601, 3602]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 599])
@pytest.mark.parametrize("names", [["websocket"], ["eventsource"], ["longpoll"]])
def test_a_status_that_may_pass_is_tried_again(names: list[str], status: int, prompt: None) -> None:
    with stub(refuses(status), OVER[names[0]](message(1), then=hold)) as server:
        assert Heard(server.url, names, count=1).ids == [1]


@every_transport
def test_informational_responses_are_skipped(transport: str) -> None:
    with stub(informed(informed(OVER[transport](opened(0), message(1), then=hold)))) as server:
        assert Heard(server.url, [transport], count=1).ids == [1]
    with stub(informed(refuses(403, "not for you"))) as server, pytest.raises(ListenRefused, match="not for you"):
        Heard(server.url, [transport])


@every_transport
def test_informational_responses_without_end_are_a_failure(transport: str, prompt: None) -> None:
    endless = informed(silent_after_head, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    with stub(endless, OVER[transport](message(1), then=hold)) as server:
        heard = Heard(server.url, [transport], count=1)
    assert f"{transport}: more than 16 informational responses" in heard.notes


def silent_after_head(talk: Talk) -> None:
    talk.request()
    talk.send(b"")
    talk.wait_for_end()


@pytest.mark.parametrize("response", cut_short(200, b'{"cursor":"%b","messages":[]}' % cursor(9).encode()))
def test_a_poll_whose_response_is_cut_short_is_sent_again(response: Script, prompt: None) -> None:
    with stub(response, over_longpoll(message(10), then=hold)) as server:
        assert Heard(server.url, ["longpoll"], count=1, start=cursor(5)).ids == [10]
    assert resumed(server.talks[1]) == cursor(5)


@every_transport
@pytest.mark.parametrize("refusal", cut_short(404, b'{"detail":"not here"}'))
def test_a_refusal_that_is_cut_short_is_a_lost_connection(transport: str, refusal: Script, prompt: None) -> None:
    with stub(refusal, OVER[transport](message(10), then=hold)) as server:
        assert Heard(server.url, [transport], count=1).ids == [10]


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


NOT_OURS = [
    b"{",
    b"[1]",
    b"{}",
    b'{"hello":"world"}',
    b'{"id":null}',
    b'{"id":7}',
    b'{"control":"open","heartbeat":15}',
    b'{"control":"ping","cursor":""}',
    b'{"control":"rotate","retry":5}',
    b'{"control":"reset","cursor":null}',
    b'{"control":"open","cursor":"e-1","heartbeat":1e999}',
    b'{"id":"\xff"}',
    b'{"id":"e-1","data":%b' % (b"[" * 200_000),
    b"<html>",
]


@pytest.mark.parametrize("transport", ["websocket", "eventsource"])
@pytest.mark.parametrize("document", NOT_OURS, ids=range(len(NOT_OURS)))
def test_data_of_another_protocol_ends_the_connection(document: bytes, transport: str, prompt: None) -> None:
    with stub(OVER[transport](opened(0), document, then=hold), OVER[transport](message(1), then=hold)) as server:
        heard = Heard(server.url, [transport], count=1)
    assert heard.lines == [message(1)]
    assert len(server.talks) == 2


@pytest.mark.parametrize("document", NOT_OURS, ids=range(len(NOT_OURS)))
def test_a_poll_with_what_is_not_of_this_protocol_ends_the_connection(document: bytes, prompt: None) -> None:
    inside = b'{"cursor":"%b","messages":[%b]}' % (cursor(0).encode(), document)
    with stub(
        *(says(answer(200, body)) for body in (document, inside)), over_longpoll(message(1), then=hold)
    ) as server:
        assert Heard(server.url, ["longpoll"], count=1).lines == [message(1)]


@pytest.mark.parametrize("transport", ["websocket", "eventsource"])
@pytest.mark.parametrize(("heartbeat", "lifetime"), [(1e300, None), (1e300, 1e300), (15, 1e300), (0, None)])
def test_a_heartbeat_of_any_length_can_be_waited_for(transport: str, heartbeat: float, lifetime: float) -> None:
    script = OVER[transport](opened(0, heartbeat=heartbeat, lifetime=lifetime), message(1), then=hold)
    with stub(script) as server:
        assert Heard(server.url, [transport], count=1, timeout=float("inf")).ids == [1]


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
def test_invalid_json_ends_the_connection(transport: str, prompt: None) -> None:
    garbage = says(answer(200, b"{")) if transport == "longpoll" else OVER[transport](opened(0), b"{")
    with stub(garbage, OVER[transport](message(1), then=hold)) as server:
        assert Heard(server.url, [transport], count=1).ids == [1]


def test_backoff_has_full_jitter_from_half_a_second_to_thirty() -> None:
    for failures, longest in ((0, 0.5), (1, 1), (3, 4), (6, 30), (10_000, 30)):
        waits = [listener.backoff_s(failures) for _ in range(500)]
        assert 0 <= min(waits) < longest / 10
        assert longest * 0.9 < max(waits) <= longest


# Which transport


def test_the_listener_falls_back_if_websocket_is_refused(prompt: None) -> None:
    blocked = says(answer(403, b"<html>blocked</html>"))
    with stub(blocked, over_eventsource(opened(0), message(1), then=hold)) as server:
        assert Heard(server.url, count=1).ids == [1]
    assert [query(talk)["transport"] for talk in server.talks] == ["websocket", "eventsource"]


def test_the_listener_falls_back_to_polls_if_a_stream_delivers_nothing(
    monkeypatch: pytest.MonkeyPatch, prompt: None
) -> None:
    monkeypatch.setattr(listener, "OPEN_S", 100 * MS)
    with stub(over_websocket(then=hold), over_eventsource(then=hold), over_longpoll(opened(0), message(1))) as server:
        assert Heard(server.url, count=1).ids == [1]
    assert [query(talk)["transport"] for talk in server.talks][:2] == ["websocket", "eventsource"]


def test_a_working_transport_is_kept_and_after_an_outage_the_best_is_tried_again(prompt: None) -> None:
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
        pytest.raises(ListenRefused, match="ask for another channel"),
    ):
        Heard(server.url, [transport])
    assert len(server.talks) == 1


def closed(code: int, reason: bytes = b"") -> Script:
    close = frame(0x88, code.to_bytes(2, "big") + reason)
    return over_websocket(then=lambda talk: talk.send(close))


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4404, 4499])
def test_a_websocket_that_is_closed_for_good_ends_it_if_no_other_transport_is_allowed(code: int) -> None:
    with (
        stub(closed(code, b"the token has expired")) as server,
        pytest.raises(ListenRefused, match="the token has expired"),
    ):
        Heard(server.url, ["websocket"])


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4404])
def test_a_websocket_that_is_closed_for_good_is_followed_by_the_next_transport(code: int, no_backoff: None) -> None:
    with stub(closed(code), over_eventsource(opened(0), message(1), then=hold)) as server:
        assert Heard(server.url, count=1).ids == [1]


def test_a_websocket_that_is_closed_for_good_later_is_too(no_backoff: None) -> None:
    close = frame(0x88, (4401).to_bytes(2, "big") + b"expired")
    with stub(
        over_websocket(opened(0), message(1), then=lambda talk: talk.send(close)),
        over_eventsource(opened(1), message(2), then=hold),
    ) as server:
        assert Heard(server.url, count=2).ids == [1, 2]
    assert resumed(server.talks[1]) == cursor(1)


def test_the_listener_ends_when_the_last_transport_is_refused(no_backoff: None) -> None:
    with (
        stub(closed(4403), refuses(403, "not this channel"), refuses(403, "not this channel either")) as server,
        pytest.raises(ListenRefused, match="not this channel either"),
    ):
        Heard(server.url)
    assert [query(talk)["transport"] for talk in server.talks] == list(TRANSPORTS)


@pytest.mark.parametrize("code", [1001, 1012, 3999, 4000, 4100, 4129, 4399, 4408, 4425, 4426, 4429, 4500, 4999])
def test_any_other_close_is_a_reason_to_come_back(code: int, prompt: None) -> None:
    close = frame(0x88, code.to_bytes(2, "big"))
    with stub(
        over_websocket(opened(0), then=lambda talk: talk.send(close)), over_websocket(message(1), then=hold)
    ) as server:
        assert Heard(server.url, ["websocket"], count=1).ids == [1]


def test_a_handshake_that_is_refused_ends_it_where_websocket_is_all_that_may_be_used() -> None:
    with (
        stub(refuses(426, "a proxy took the Upgrade header")) as server,
        pytest.raises(ListenRefused, match="a proxy took the Upgrade header"),
    ):
        Heard(server.url, ["websocket"])


@every_transport
def test_a_server_with_a_certificate_of_nobody_ends_it(transport: str) -> None:
    with (
        stub(silent, tls=server_tls()) as server,
        pytest.raises(ListenRefused, match="certificate verification failed: self"),
    ):
        Heard(server.url, [transport])
    assert server.talks == []


@every_transport
def test_a_redirect_is_not_followed(transport: str) -> None:
    with (
        stub(json_says(302, {}, Location="http://elsewhere/")) as server,
        pytest.raises(ListenRefused, match="redirects to http://elsewhere/"),
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
def test_the_listener_connects_over_tls(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    default_tls.cache_clear()
    try:
        with stub(OVER[transport](opened(0), message(1), then=hold), tls=server_tls()) as server:
            assert Heard(server.url, [transport], count=1).ids == [1]
    finally:
        default_tls.cache_clear()


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


@pytest.mark.parametrize("over", [over_eventsource, over_chunks])
def test_each_event_is_delivered_at_once(over: Callable[..., Script]) -> None:
    out = Lines()

    def script(talk: Talk) -> None:
        def send_second(talk: Talk) -> None:
            assert out.next() == message(1) + b"\n"
            event = b"data: " + message(2) + b"\n\n"
            talk.send(chunk(event) if over is over_chunks else event)
            hold(talk)

        over(opened(0), message(1), then=send_second)(talk)

    with stub(script) as server:
        assert Heard(server.url, ["eventsource"], count=2, out=out).ids == [1, 2]


@pytest.mark.parametrize("size", [1, 7, 50])
def test_events_are_the_same_however_the_chunks_divide_them(size: int) -> None:
    with stub(over_chunks(opened(0), message(1), message(2), then=hold, size=size)) as server:
        assert Heard(server.url, ["eventsource"], count=2).lines == [message(1), message(2)]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (b"0\r\n\r\n", "ended"),
        (b"", "the connection was lost in the middle of the response"),
        (chunk(b"data: ")[:-3], "the connection was lost in the middle of the response"),
        (b"50\r\ndata: " + message(2), "the connection was lost in the middle of the response"),
        (b"-5\r\n", "the connection was lost in the middle of the response"),
    ],
)
def test_a_stream_that_ends_without_its_last_chunk_was_cut(end: bytes, reason: str, prompt: None) -> None:
    with stub(
        over_chunks(opened(0), message(1), then=lambda talk: talk.send(end)),
        over_chunks(opened(1), message(2), then=hold),
    ) as server:
        heard = Heard(server.url, ["eventsource"], count=2)
    assert heard.ids == [1, 2]
    assert f"eventsource: {reason}" in heard.notes
    assert resumed(server.talks[1]) == cursor(1)


# The real server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, "--drain-timeout", "0")
    yield server
    server.stop()


class Known(Position):
    """Tells when the server has named a position: from then on nothing is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.known = threading.Event()

    def reached(self, cursor: str) -> None:
        super().reached(cursor)
        self.known.set()


class Following:
    """A listener in a thread, which can be waited for."""

    def __init__(self, url: str, names: Sequence[str], count: int) -> None:
        self.heard: list[Heard] = []
        self.position, self.out = Known(), Lines()
        self.thread = threading.Thread(target=self._follow, args=(url, names, count))
        self.thread.start()
        assert self.position.known.wait(PATIENCE_S)

    def _follow(self, url: str, names: Sequence[str], count: int) -> None:
        self.heard.append(Heard(url, names, count=count, position=self.position, out=self.out))

    def next(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out.next())
        return document

    def ends(self) -> None:
        self.thread.join(PATIENCE_S)
        assert self.heard[0].code == 0


@every_transport
def test_the_listener_resumes_after_a_lost_connection(server: Server, transport: str, prompt: None) -> None:
    with Proxy(server.port) as proxy:
        following = Following(proxy.url, [transport], 4)
        server.publish("a", "one")
        server.publish("b", "two")
        proxy.cut()
        server.publish("a", "three")
        proxy.mend()
        server.publish("c", "not for us")
        server.publish("a", "four")
        assert [following.next()["data"] for _ in range(4)] == ["one", "two", "three", "four"]
        following.ends()


@every_transport
def test_the_listener_resumes_after_a_restart_and_misses_nothing(tmp_path: Path, transport: str, prompt: None) -> None:
    with restarting(tmp_path, transport) as (following, second):
        second.publish("a", "two")
        assert following.next()["data"] == "two"
        following.ends()


@every_transport
def test_the_listener_reports_lost_history_after_a_restart(tmp_path: Path, transport: str, prompt: None) -> None:
    with restarting(tmp_path, transport, "--store", "memory:") as (following, second):
        reset = following.next()
        second.publish("a", "two")
        assert following.next()["data"] == "two"
        following.ends()
    assert (reset["control"], reset["channels"]) == ("reset", ["a", "b"])


@contextmanager
def restarting(state_dir: Path, transport: str, *options: str) -> Iterator[tuple[Following, Server]]:
    """Someone who has followed a server and had a message, and the server that was started in its place."""
    first = Server(state_dir, "--drain-timeout", "0", *options)
    following = Following(first.url, [transport], 2)
    first.publish("a", "one")
    assert following.next()["data"] == "one"
    assert first.stop() == 0
    second = Server(state_dir, "--drain-timeout", "0", "--port", str(first.port), *options)
    try:
        yield following, second
    finally:
        second.stop()


def test_the_listener_uses_the_best_transport(server: Server) -> None:
    following = Following(server.url, list(TRANSPORTS), 1)
    assert server.metric('pushcompat_subscriptions{transport="websocket"}') == 1
    server.publish("b", "x")
    assert following.next()["data"] == "x"
    following.ends()


@every_transport
def test_earliest_over_several_channels_is_all_that_is_retained(server: Server, transport: str, prompt: None) -> None:
    for number in range(10):
        server.publish("b", str(number) * 40_000)
    for number in range(120):  # more than the server keeps of a channel
        server.publish("a", str(number))
    heard = Heard(server.url, [transport], count=110, start="earliest")
    assert len(heard.lines) == 110
    assert heard.ids == sorted(heard.ids)


# Tokens


def closes_with_4401(talk: Talk) -> None:
    talk.send(frame(0x88, (4401).to_bytes(2, "big") + b"the token has expired"))


ENDS: dict[str, Script | None] = {"websocket": closes_with_4401, "eventsource": None}


def tokens(*given: str) -> Callable[[], str]:
    left = list(given)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def bearer(talk: Talk) -> str:
    return talk.headers["authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("transport", ENDS)
def test_a_token_that_expires_is_replaced_and_nothing_is_lost(transport: str, no_backoff: None) -> None:
    with stub(
        OVER[transport](opened(0), message(1), control("expired", 2), then=ENDS[transport]),
        OVER[transport](opened(2), message(3), then=hold),
    ) as server:
        assert Heard(server.url, [transport], count=2, token=tokens("t1", "t2")).ids == [1, 3]
    assert [bearer(talk) for talk in server.talks] == ["t1", "t2"]
    assert resumed(server.talks[1]) == cursor(2)


@pytest.mark.parametrize("transport", ENDS)
def test_without_another_token_the_server_decides_again_when_it_expires(transport: str, no_backoff: None) -> None:
    with (
        stub(
            OVER[transport](opened(0), message(1), control("expired", 2), then=ENDS[transport]),
            refuses(401, "the token has expired; request a new one"),
        ) as server,
        pytest.raises(ListenRefused, match="request a new one"),
    ):
        Heard(server.url, [transport], token="the only one")
    assert resumed(server.talks[1]) == cursor(2)


@every_transport
def test_a_token_that_is_refused_is_replaced_once_at_once_and_then_with_backoff(
    transport: str, pauses: list[float]
) -> None:
    no = refuses(401, "wrong")
    with stub(OVER[transport](opened(0), message(1)), no, no, no, OVER[transport](message(2), then=hold)) as server:
        assert Heard(server.url, [transport], count=2, token=tokens("t1", "t2", "t3", "t4", "t5")).ids == [1, 2]
    assert [bearer(talk) for talk in server.talks] == ["t1", "t2", "t3", "t4", "t5"]


@every_transport
def test_a_first_token_that_is_refused_twice_ends_it(transport: str, pauses: list[float]) -> None:
    with (
        stub(refuses(401, "wrong"), refuses(401, "wrong again")) as server,
        pytest.raises(ListenRefused, match="wrong again"),
    ):
        Heard(server.url, [transport], token=tokens("t1", "t2"))
    assert [bearer(talk) for talk in server.talks] == ["t1", "t2"]
