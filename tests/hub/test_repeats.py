"""Requests that are compared with earlier ones (``Publishing.repeat``, ``Polls.repeat``) get what they would parsed.

Two hubs are sent the same requests, and one of them compares none.
"""

from __future__ import annotations

import asyncio
import re
import socket
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pushcompat.access.named_key import NamedKey
from pushcompat.access.patterns import Pattern
from pushcompat.hub import requests as module
from pushcompat.limits import Limits, Retention
from pushcompat.message import Message, format_cursor
from pushcompat.store.base import Publish
from pushcompat.store.memory import MemoryStore
from pushcompat.wire.request import parse_head

from ..harness import EXAMPLES, KEY, PATIENCE_S
from ..inprocess import LocalHub, running_hub
from ..machine import interpreted_only

EPOCH = "aaaaaaaa"
RETAINED = 4
LIMITED = "pc_aaaaaaaa_x"  # a key for channel a
Answer = tuple[int, bytes, bytes]  # status, whether the connection is kept, body


def cursor(sequence: int) -> str:
    return format_cursor(EPOCH, sequence)


# Requests

hosts = st.sampled_from([["Host: h"], ["Host: h"], ["Host: h", "User-Agent: x"], []])
kept = st.sampled_from([[], [], [], ["Connection: keep-alive"], ["Connection: close"]])
versions = st.sampled_from(["1.1", "1.1", "1.1", "1.0"])
origins = st.sampled_from([[], [], [], ["Origin: http://h"], ["Origin: https://elsewhere.example"]])
keys = st.sampled_from(
    [[], [], ["Idempotency-Key: k"], ["Idempotency-Key: l"], ["idempotency-key: k"], ["IDEMPOTENCY-KEY: k"],
     ["Idempotency-Key:k"], ["Idempotency-Key: k l"], ["Idempotency-Key: " + "k" * 257],
     ["Idempotency-Key: k", "Idempotency-Key: l"]]
)  # fmt: skip
authorizations = st.sampled_from(
    [[f"Authorization: Bearer {KEY}"]] * 4
    + [["Authorization: Bearer wrong"], [], [f"authorization: bearer {KEY}"], [f"Authorization: Bearer {LIMITED}"]]
)
types = st.sampled_from([[], [], ["Content-Type: application/json"], ["Content-Type: image/png"]])
targets = st.sampled_from(
    ["/channels/a", "/channels/a", "/channels/b", "/channels/a,b", "/channels/a?key=k", "/channels/%61",
     "/channels/a%20b", "/channels", "http://h/channels/a", "/channels/" + "x" * 129]
)  # fmt: skip
bodies = st.sampled_from([b"x", b"y", b"1", b"[", b"\xff", b"", b" ", b'"x"', b'[{"channel":"a"}]', b"x" * 65])
framings = st.sampled_from(["length", "length", "length", "chunked"])


def _publish(
    target: str, version: str, host: list[str], authorization: list[str], key: list[str], kind: list[str],
    keep: list[str], origin: list[str], framing: str, body: bytes,
) -> bytes:  # fmt: skip
    lines = [f"POST {target} HTTP/{version}", *host, *authorization, *key, *kind, *keep, *origin]
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _poll(names: str, query: list[str], version: str, host: list[str], keep: list[str], lines: list[str]) -> bytes:
    head = [f"GET /channels/{names}?{'&'.join(query)} HTTP/{version}", *host, *keep, *lines]
    return "\r\n".join([*head, "", ""]).encode()


positions = st.sampled_from([cursor(n) for n in range(7)] * 2 + ["", "earliest", "unknown", "bbbbbbbb-" + "0" * 15])
parameters = st.one_of(
    positions.map(lambda text: [f"cursor={text}", "wait=0"]),
    positions.map(lambda text: [f"cursor={text}", "wait=0"]),
    positions.map(lambda text: ["wait=0", f"cursor={text}"]),
    positions.map(lambda text: ["wait=0", f"cursor={text}", "client=%78"]),
    st.tuples(positions, positions).map(lambda two: [f"cursor={two[0]}", "wait=0", f"lastEventId={two[1]}"]),
    st.tuples(positions, positions).map(lambda two: [f"cursor={two[0]}", "wait=0", f"cursor={two[1]}"]),
)
last_event_ids = st.one_of(st.just([]), st.just([]), positions.map(lambda text: [f"Last-Event-ID: {text}"]))

publishes = st.builds(_publish, targets, versions, hosts, authorizations, keys, types, kept, origins, framings, bodies)
usual_publishes = st.builds(
    _publish, st.sampled_from(["/channels/a", "/channels/b"]), st.just("1.1"), st.just(["Host: h"]),
    st.sampled_from([[f"Authorization: Bearer {key}"] for key in (KEY, LIMITED)]), keys, types,
    st.just([]), st.just([]), st.just("length"), bodies,
)  # fmt: skip
polls = st.builds(_poll, st.sampled_from(["a", "b", "a,b"]), parameters, versions, hosts, kept, last_event_ids)
usual_polls = st.builds(
    _poll, st.sampled_from(["a", "a,b"]), positions.map(lambda text: [f"cursor={text}", "wait=0"]), st.just("1.1"),
    st.just(["Host: h"]), st.just([]), st.just([]),
)  # fmt: skip
schedules = st.lists(
    st.one_of(publishes, usual_publishes, usual_publishes, polls, usual_polls, usual_polls), max_size=25
)


# Answers


class Sender:
    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self._socket: socket.socket | None = None

    async def ask(self, request: bytes) -> Answer:
        if self._socket is None:
            self._socket = await self._hub.connect()
        await asyncio.get_running_loop().sock_sendall(self._socket, request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines[1:])
        while len(body) < int(fields[b"Content-Length"]):
            body += await self._more()
        assert len(body) == int(fields[b"Content-Length"]), body
        if fields[b"Connection"] == b"close":
            assert await self._receive() == b""
            self.close()
        return int(lines[0].split()[1]), fields[b"Connection"], re.sub(rb'"(time|retry)":\d+', b"", body)

    async def _more(self) -> bytes:
        data = await self._receive()
        assert data, "the server ended the connection"
        return data

    async def _receive(self) -> bytes:
        assert self._socket is not None
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 1 << 16), PATIENCE_S)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


async def answers(requests: list[bytes], *, comparing: bool) -> tuple[list[Answer], list[tuple[str, bytes]], Any]:
    """What the requests get, what is in the log after them, and how subscriptions ended."""
    store = MemoryStore(Retention(count=RETAINED))
    store.epoch = EPOCH
    store.append([Publish([Message("ab"[n % 2], b"%d" % n) for n in range(4)])], lambda outcomes: None)
    async with running_hub(store, Limits(retention=Retention(count=RETAINED), message_bytes=64)) as hub:
        limited = NamedKey("limited", [Pattern("a")], sha256(LIMITED.encode()).digest(), LIMITED[:11])
        hub.access.publishers.apply(hub.access.publishers.added(limited))
        sender = Sender(hub)
        got = []
        for request in requests:
            if not comparing:
                forget_earlier_requests(hub)
            got.append(await sender.ask(request))
        sender.close()
        log = [(message.channel, message.data) for message in (await store.retained()).messages]
        ended = dict(hub.metrics.unsubscribes), hub.metrics.refused, hub.metrics.publishes
    return got, log, ended


def forget_earlier_requests(hub: LocalHub) -> None:
    hub._publishing._templates.clear()
    for connection in hub.sockets.connections():
        connection.poll_template = None


@pytest.fixture(scope="module")
def runner() -> Any:
    with asyncio.Runner() as runner:
        yield runner


def with_key(target: str, key: str) -> bytes:
    return _publish(target, "1.1", ["Host: h"], [f"Authorization: Bearer {key}"], [], [], [], [], "length", b"x")


@example([with_key("/channels/a", LIMITED), with_key("/channels/b", LIMITED)])
@settings(max_examples=150 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedules)
def test_a_compared_request_gets_what_a_parsed_one_would(runner: asyncio.Runner, requests: list[bytes]) -> None:
    got, log, ended = runner.run(answers(requests, comparing=True))
    wanted, wanted_log, wanted_ended = runner.run(answers(requests, comparing=False))
    assert got == wanted
    assert (log, ended) == (wanted_log, wanted_ended)


@interpreted_only
@pytest.mark.parametrize("key", [KEY, LIMITED])
def test_repeats_are_compared_at_all(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    publish = _publish(
        "/channels/a", "1.1", ["Host: h"], [f"Authorization: Bearer {key}"], ["Idempotency-Key: k"], [], [], [],
        "length", b"x",
    )  # fmt: skip
    poll = _poll("a", [f"cursor={cursor(1)}", "wait=0"], "1.1", ["Host: h"], [], [])
    parsed: list[bytes] = []
    monkeypatch.setattr(module, "parse_head", lambda head: parsed.append(head) or parse_head(head))
    runner.run(answers([publish, publish, poll, poll, publish, poll], comparing=True))
    assert [head[:4] for head in parsed] == [b"POST", b"GET "]
