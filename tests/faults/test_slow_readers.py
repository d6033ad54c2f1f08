"""Subscribers that hardly read: nobody waits for them, nothing piles up for them, and they are told of holes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ..harness import KEY, Client, Server, sequence

MIB = 1024 * 1024
CHANNEL = "/channels/news"
Read = Callable[[Client], dict[str, Any]]


def websocket(client: Client) -> None:
    assert client.upgrade(f"{CHANNEL}?format=json") == 101


def eventsource(client: Client) -> None:
    client.request("GET", f"{CHANNEL}?format=json", Accept="text/event-stream")
    assert client.head()[0] == 200


def next_frame(client: Client) -> dict[str, Any]:
    first, payload = client.frame()
    while first != 0x81:
        first, payload = client.frame()
    document: dict[str, Any] = json.loads(payload)
    return document


def next_event(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(client.event()["data"])
    return document


TRANSPORTS = {"websocket": (websocket, next_frame), "eventsource": (eventsource, next_event)}


def documents(client: Client, read: Read) -> Iterator[dict[str, Any]]:
    """What the server says, heartbeats left out."""
    while True:
        document = read(client)
        if document.get("control") != "ping":
            yield document


class Publisher:
    """One kept-alive connection that publishes numbered messages of about 200 bytes, many at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.number = 0

    def publish(self, count: int, size: int = 180) -> None:
        numbers = range(self.number, self.number + count)
        batch = [{"channel": "news", "data": {"n": n, "filling": "x" * size}} for n in numbers]
        body = json.dumps(batch).encode()
        self._client.request(
            "POST", "/channels", body, Authorization=f"Bearer {KEY}", Content_Type="application/json"
        )  # fmt: skip
        assert self._client.response()[0] == 200
        self.number += count


@contextmanager
def opened(server: Server, transports: Sequence[str], receive_buffer: int | None = None) -> Iterator[list[Client]]:
    """Subscribers that have read the opening."""
    with ExitStack() as stack:
        clients = []
        for transport in transports:
            client = stack.enter_context(server.connect(receive_buffer))
            subscribe, read = TRANSPORTS[transport]
            subscribe(client)
            assert read(client)["control"] == "open"
            clients.append(client)
        yield clients


def read_on(client: Client, read: Read, first: int, last: int) -> tuple[list[int], list[int]]:
    """Reads to message ``last``, or to a ``reset``. Checks that not one is missing or comes twice.

    Returns the messages' numbers, and the sequence number of the reset where there was one.
    """
    numbers: list[int] = []
    before = 0
    for document in documents(client, read):
        place = sequence(document["cursor" if "control" in document else "id"])
        assert place > before
        before = place
        if "control" in document:
            assert (document["control"], document["channels"]) == ("reset", ["news"])
            return numbers, [place]
        assert document["data"]["n"] == first + len(numbers), "a silent hole"
        numbers.append(document["data"]["n"])
        if numbers[-1] == last:
            return numbers, []
    raise AssertionError


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.options("--heartbeat", "60", "--log-level", "warning")
def test_a_client_that_does_not_read_delays_no_other_and_costs_no_memory(server: Server, transport: str) -> None:
    read = TRANSPORTS[transport][1]
    with (
        server.connect() as connection,
        opened(server, [transport] * 20, receive_buffer=4096) as sleepers,
        opened(server, ["websocket", "eventsource", transport]) as healthy,
    ):
        readers = [documents(client, TRANSPORTS[t][1]) for client, t in
                   zip(healthy, ["websocket", "eventsource", transport], strict=True)]  # fmt: skip
        publisher = Publisher(connection)

        def publish_to_all(count: int) -> None:
            """Each healthy reader has all of it before anything else is published."""
            start = publisher.number
            publisher.publish(count)
            for reader in readers:
                assert [next(reader)["data"]["n"] for _ in range(count)] == list(range(start, start + count))

        for _ in range(20):  # until all sleepers' buffers are full, and the server has what memory it works with
            publish_to_all(100)
        before = server.memory()
        for _ in range(100):
            publish_to_all(100)
        assert server.memory() - before < 2 * MIB
        assert server.metric("pushcompat_resets_total") == 0
        for sleeper in sleepers:
            numbers, resets = read_on(sleeper, read, 0, publisher.number)
            assert len(numbers) < 2000
            assert len(resets) == 1, "it was told that it missed something"
        # From there on they are subscribers like all others.
        publish_to_all(1)
        for sleeper in sleepers:
            assert read_on(sleeper, read, publisher.number - 1, publisher.number - 1)[1] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.options("--heartbeat", "60", "--log-level", "warning", "--history", "20000")
def test_a_client_that_reads_again_gets_all_that_is_retained_in_order(server: Server, transport: str) -> None:
    with server.connect() as connection, opened(server, [transport], receive_buffer=4096) as (sleeper,):
        publisher = Publisher(connection)
        for _ in range(100):
            publisher.publish(100)
        numbers, resets = read_on(sleeper, TRANSPORTS[transport][1], 0, 9999)
        assert (len(numbers), resets) == (10_000, [])
        publisher.publish(1)
        assert read_on(sleeper, TRANSPORTS[transport][1], 10_000, 10_000) == ([10_000], [])
        assert server.metric("pushcompat_resets_total") == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.options("--heartbeat", "60", "--log-level", "warning", "--history", "1000")
def test_a_client_that_reads_now_and_then_is_never_left_with_a_silent_hole(server: Server, transport: str) -> None:
    """Reads a little between publishes, always behind: sometimes it is within what is retained, sometimes not."""
    read = TRANSPORTS[transport][1]
    with server.connect() as connection, opened(server, [transport], receive_buffer=4096) as (reader,):
        publisher = Publisher(connection)
        source = documents(reader, read)
        expected, resets, gaps = 0, 0, 0
        for burst in (500, 2000, 300, 900, 4000, 100, 1500):
            for _ in range(burst // 100):
                publisher.publish(100)
            for document in (next(source) for _ in range(burst // 3)):
                if document.get("control") == "reset":
                    resets += 1
                    expected = -1
                    publisher.publish(1)  # so that there is something to read
                    continue
                number = document["data"]["n"]
                assert number == expected or expected == -1, "a silent hole"
                gaps += expected == -1
                expected = number + 1
                if number == publisher.number - 1:
                    publisher.publish(1)
        assert resets >= 1
        assert gaps == resets
