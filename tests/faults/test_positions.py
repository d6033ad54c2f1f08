"""A client that gives its position in several ways: its library keeps one up to date, and another as it began."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from ..harness import Client, Server

TRANSPORTS = ["longpoll", "eventsource", "websocket"]
OTHER_EPOCH = "00000000-999999999999999"
Places = tuple[str, str, str]  # what is in the header, in lastEventId, and in cursor; empty: left out


def first_after(server: Server, transport: str, channel: str, places: Places) -> str:
    """What a subscriber from this position gets first: a message's data, or ``reset``."""
    header, last_event_id, cursor = places
    given = {"lastEventId": last_event_id, "cursor": cursor}
    query = "&".join(f"{name}={value}" for name, value in given.items() if value)
    target = f"/channels/{channel}?format=json&{query}"
    fields = {"Last_Event_ID": header} if header else {}
    with server.connect() as client:
        if transport == "longpoll":
            client.request("GET", f"{target}&wait=0", **fields)
            answer = json.loads(client.response()[2])
            return "reset" if "reset" in answer else str([*answer["messages"], {"data": "nothing"}][0]["data"])
        if transport == "websocket":
            assert client.upgrade(target, **fields) == 101
        else:
            client.request("GET", target, Accept="text/event-stream", **fields)
            assert client.head()[0] == 200
        while True:
            document = json.loads(client.frame()[1] if transport == "websocket" else client.event()["data"])
            if document.get("control") not in ("open", "ping"):
                return str(document.get("control", document.get("data")))


@pytest.fixture(scope="module")
def ids(shared_server: Server) -> list[str]:
    """The ids of messages 0 to 5."""
    return [shared_server.publish("positions", str(number))["id"] for number in range(6)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_newest_counts_wherever_it_is(shared_server: Server, ids: list[str], transport: str) -> None:
    for header, last_event_id, cursor in permutations((ids[0], ids[2], ids[4])):
        assert first_after(shared_server, transport, "positions", (header, last_event_id, cursor)) == "5"
    for one, other in permutations((ids[1], ids[3])):
        for places in ((one, other, ""), (one, "", other), ("", one, other)):
            assert first_after(shared_server, transport, "positions", places) == "4"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("worse", [OTHER_EPOCH, "earliest", "42", "undefined", "%00"])
def test_a_position_of_this_log_beats_what_is_none(
    shared_server: Server, ids: list[str], transport: str, worse: str
) -> None:
    for one, other in permutations((ids[3], worse)):
        for places in ((one, other, ""), (one, "", other), ("", one, other)):
            assert first_after(shared_server, transport, "positions", places) == "4"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_position_of_another_log_beside_one_that_cannot_be_read_is_answered_with_a_reset(
    shared_server: Server, ids: list[str], transport: str
) -> None:
    for places in permutations((OTHER_EPOCH, "undefined", "")):
        assert first_after(shared_server, transport, "positions", places) == "reset"


def test_polls_of_one_connection_go_on_from_the_newest_position_each(shared_server: Server, ids: list[str]) -> None:
    """Polls that repeat each other are compared, and not parsed."""
    with shared_server.connect() as client:
        for header, cursor, expected in ((1, 1, 4), (1, 2, 3), (1, 4, 1), (4, 1, 1), (0, 5, 0)):
            assert polled(client, f"cursor={ids[cursor]}", Last_Event_ID=ids[header]) == expected
        for number in range(6):
            assert polled(client, f"cursor={ids[number]}&lastEventId={ids[2]}") == 5 - max(number, 2)


def polled(client: Client, query: str, **fields: str) -> int:
    client.request("GET", f"/channels/positions?{query}&wait=0", **fields)
    return len(json.loads(client.response()[2])["messages"])
