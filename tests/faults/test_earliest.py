"""``earliest`` belongs to the request that says it, and holds until all that was retained is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..harness import Client, Server


def numbers(answer: dict[str, Any]) -> list[int]:
    return [int(message["data"].split()[0]) for message in answer["messages"]]


@pytest.mark.options("--history", "10")
def test_an_older_cursor_behind_earliest_on_the_same_connection_is_a_reset(client: Client) -> None:
    client.publish("chat", b"0")
    old = json.loads(client.response()[2])["id"]
    for number in range(1, 30):
        client.publish("chat", str(number).encode())
        assert client.response()[0] == 200
    answer = client.poll("chat", "cursor=earliest")
    assert (numbers(answer), "reset" in answer) == ([*range(20, 30)], False)
    assert client.poll("chat", f"cursor={old}")["reset"] == ["chat"]
    again = client.poll("chat", "cursor=earliest")
    assert (numbers(again), "reset" in again) == ([*range(20, 30)], False)


@pytest.mark.parametrize("kept", [True, False], ids=["one connection", "a connection each"])
def test_polls_that_end_at_the_limit_of_a_send_go_on_without_a_reset(server: Server, kept: bool) -> None:
    with server.connect() as first:
        for number in range(10):
            first.publish("b", f"{number} ".encode() + b"x" * 40_000)
            assert first.response()[0] == 200
        for number in range(150):
            first.publish("a", str(number).encode())
            assert first.response()[0] == 200
        cursor = "earliest"
        answers: list[dict[str, Any]] = []
        while not answers or answers[-1]["messages"]:
            if kept:
                answers.append(first.poll("a,b", f"cursor={cursor}"))
            else:
                with server.connect() as other:
                    answers.append(other.poll("a,b", f"cursor={cursor}"))
            cursor = answers[-1]["cursor"]
        assert not any("reset" in answer for answer in answers)
        assert [number for answer in answers for number in numbers(answer)] == [*range(10), *range(50, 150)]


@pytest.mark.parametrize("transport", ["websocket", "eventsource"])
def test_a_stream_that_is_cut_again_and_again_behind_its_opening_misses_nothing(server: Server, transport: str) -> None:
    with server.connect() as publisher:
        for channel, count in ("b", 3), ("a", 150):
            for number in range(count):
                publisher.publish(channel, str(number).encode())
                assert publisher.response()[0] == 200
    cursor = "earliest"
    for last in (False, False, False, True):
        with server.connect() as stream:
            target = f"/channels/a,b?format=json&cursor={cursor}"
            if transport == "websocket":
                assert stream.upgrade(target) == 101
            else:
                stream.request("GET", target, Accept="text/event-stream")
                assert stream.head()[0] == 200
            cursor = document(stream, transport)["cursor"]  # of ``open``
            got: list[int] = []
            while last and len(got) < 103:
                said = document(stream, transport)
                assert said.get("control") in (None, "ping"), said
                got += [int(said["data"])] if "data" in said else []
    assert got == [*range(3), *range(50, 150)]


def document(stream: Client, transport: str) -> dict[str, Any]:
    text = stream.frame()[1].decode() if transport == "websocket" else stream.event()["data"]
    found: dict[str, Any] = json.loads(text)
    return found
