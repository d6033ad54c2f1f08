"""Long-polls: when they are held and for how long, and that a compared poll gets what a parsed one would."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from pushcompat.access.grant import REVOKED
from pushcompat.hub.connection import Connection, State
from pushcompat.limits import Limits, Retention

from ..harness import sequence
from ..parity.wires import Event
from .stage import LocalClient, Stage, play

KEEPING_FEW = Limits(retention=Retention(count=2))


async def polls(stage: Stage, count: int, **params: str) -> list[Connection]:
    """That many polls, which are held."""
    for _ in range(count):
        await stage.subscribed("longpoll-json", "a", **params)
    await stage.until(lambda: len(held(stage)) == count)
    return held(stage)


def held(stage: Stage) -> list[Connection]:
    return [c for c in stage.hub.sockets.connections() if c.state is State.POLLING]


# How long one is held


@pytest.mark.parametrize("params", [{}, {"wait": ""}, {"wait": "0"}, {"wait": "0.9"}])
def test_a_poll_that_only_asks_for_the_cursor_is_answered_at_once_and_leaves_nothing(params: dict[str, str]) -> None:
    async def scenario(stage: Stage) -> None:
        last = await stage.publish("a")
        client = await stage.client()
        await client.subscribe("longpoll-json", "a,made-up", **params)
        assert await client.event() == Event("ping", last)
        assert (stage.hub.subscribers, stage.hub.metrics.unsubscribes, len(stage.hub.history)) == (0, Counter(), 1)

    play(scenario)


@pytest.mark.parametrize("params", [{"wait": "1"}, {"cursor": "earliest"}, {"cursor": "unknown", "wait": "0"}])
def test_a_poll_that_names_a_position_or_waits_is_a_subscription(params: dict[str, str]) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed("longpoll-json", "a", **params)
        await stage.publish("a")
        await client.event()
        assert stage.count("a") == 1

    play(scenario)


def test_polls_that_came_together_end_in_the_last_tenth_of_the_window_and_not_together() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        await polls(stage, 60, wait="100")
        ended = Counter[int]()
        for second in range(1, 101):
            before = len(held(stage))
            await stage.hub.let_pass()
            ended[second] = before - len(held(stage))
        assert held(stage) == []
        assert min(+ended) >= 90
        assert max(ended.values()) < 30

    play(scenario, Limits(poll_window_s=100))


@pytest.mark.parametrize(("wait", "at_most"), [("60", 10), ("3", 3), ("1", 1)])
def test_a_poll_is_held_as_long_as_it_asks_but_no_longer_than_the_window(wait: str, at_most: int) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        (poll,) = await polls(stage, 1, wait=wait)
        await stage.hub.let_pass(max(1, at_most * 9 // 10) - 1)
        assert poll.state is State.POLLING
        await stage.hub.let_pass(2 if at_most > 3 else 1)
        assert poll.state is State.READING_HEAD

    play(scenario, Limits(poll_window_s=10))


@pytest.mark.parametrize("cap_s", [6.1, 7, 9])
def test_a_poll_under_a_short_request_cap_is_held_for_more_than_a_second(cap_s: float) -> None:
    """The client takes a shorter one for a proxy's doing, and pauses."""

    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        await polls(stage, 20, wait="60")
        await stage.hub.let_pass()  # up to a second, as timers count
        assert len(held(stage)) == 20

    play(scenario, Limits(request_cap_s=cap_s))


def test_a_polls_window_begins_with_the_first_byte_of_its_request() -> None:
    """So that it fits a request cap on the way, which is counted from there."""

    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        client = await stage.client()
        head = b"GET /channels/a?wait=60 HTTP/1.1\r\nHost: test\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client.socket, head[:20])
        await stage.until(lambda: any(c.pending_input for c in stage.hub.sockets.connections()))
        await stage.hub.let_pass(6)
        await asyncio.get_running_loop().sock_sendall(client.socket, head[20:])
        await stage.until(lambda: len(held(stage)) == 1)
        await stage.hub.let_pass(4)
        assert held(stage) == []

    play(scenario, Limits(poll_window_s=10))


# Polls that are compared


def test_a_poll_that_comes_again_gets_what_a_first_one_would() -> None:
    async def scenario(stage: Stage) -> None:
        poller = await stage.client()
        await poller.subscribe("longpoll-json", "a,b")
        cursor = (await poller.event()).cursor
        for number in range(20):
            assert cursor is not None
            await poller.subscribe("longpoll-json", "a,b", cursor=cursor)
            if number % 2:
                await stage.hub.until_subscribed(poller.socket)
            last = await stage.publish(*("ab" if number % 3 else "b"))
            data = [(await poller.event()).data for _ in ("ab" if number % 3 else "b")]
            assert data == list("ab" if number % 3 else "b")
            cursor = (await poller.event()).cursor
            assert cursor == last

    play(scenario)


def test_a_poll_that_comes_again_too_late_is_reset() -> None:
    async def scenario(stage: Stage) -> None:
        cursor = await stage.publish("a")
        poller = await stage.subscribed("longpoll-json", "a", cursor=cursor)
        await stage.publish("a")
        assert (await poller.event()).kind == "message"
        cursor = (await poller.event()).cursor or ""
        await poller.subscribe("longpoll-json", "a", cursor=cursor)
        await stage.publish("a")
        assert (await poller.event()).kind == "message"
        await poller.event()
        last = await stage.publish(*"aaa")
        await poller.subscribe("longpoll-json", "a", cursor=cursor)
        assert await poller.event() == Event("reset", last, channels=("a",))

    play(scenario, KEEPING_FEW)


async def poll(client: LocalClient, names: str, *lines: str, **params: str) -> dict[str, Any]:
    """One poll's answer. The lines are header fields."""
    query = "&".join(f"{name}={value}" for name, value in params.items())
    head = "\r\n".join([f"GET /channels/{names}?{query} HTTP/1.1", "Host: test", *lines, "", ""])
    await asyncio.get_running_loop().sock_sendall(client.socket, head.encode())
    received = b""
    while not received.endswith(b"}\n"):
        received += await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16)
    document: dict[str, Any] = json.loads(received.partition(b"\r\n\r\n")[2])
    return document


def numbers(answer: dict[str, Any]) -> list[int]:
    return [sequence(message["id"]) for message in answer["messages"]]


@pytest.mark.parametrize("header", [0, 2, 3])
def test_a_repeated_poll_with_a_last_event_id_goes_on_from_the_newer_position(header: int) -> None:
    async def scenario(stage: Stage) -> None:
        ids = [await stage.publish("a") for _ in range(4)]
        client = await stage.client()
        for number in (header, 0, 1, 2):
            answer = await poll(client, "a", f"Last-Event-ID: {ids[header]}", cursor=ids[number], wait="0")
            assert numbers(answer) == [sequence(cursor) for cursor in ids[max(number, header) + 1 :]]

    play(scenario)


def test_a_repeated_poll_with_an_older_cursor_is_not_excused_from_what_an_earlier_one_was() -> None:
    """``earliest`` of several channels ignores what is gone; a cursor does not."""

    async def scenario(stage: Stage) -> None:
        ids = [await stage.publish("a") for _ in range(5)]
        client = await stage.client()
        assert numbers(await poll(client, "a,b", cursor="earliest", wait="0")) == [4, 5]
        assert (await poll(client, "a,b", cursor=ids[0], wait="0"))["reset"] == ["a"]
        assert numbers(await poll(client, "a,b", cursor=ids[2], wait="0")) == [4, 5]
        assert (await poll(client, "a,b", cursor=ids[1], wait="0"))["reset"] == ["a"]

    play(scenario, KEEPING_FEW)


def test_a_poll_after_an_unanswered_earliest_is_not_excused_either() -> None:
    async def scenario(stage: Stage) -> None:
        ids = [await stage.publish(*names) for names in ("b", "aaa", "b", "b")]
        now = time.monotonic()
        for later in (1, 3602):
            stage.hub.history._clock = lambda: now + later  # noqa: B023
            await stage.hub.let_pass()
        assert stage.hub.history.count == 0
        client = await stage.client()
        answer = await poll(client, "a,b", cursor="earliest", wait="0")
        assert answer["messages"] == []
        assert (await poll(client, "a,b", cursor=ids[0], wait="0"))["reset"] == ["a", "b"]

    play(scenario, KEEPING_FEW)


def test_a_poll_after_an_earliest_for_which_there_was_nothing_to_do_is_not_excused_either() -> None:
    async def scenario(stage: Stage) -> None:
        cursor = await stage.publish("a")
        stage.store.trim_before_read(5)
        await stage.until(lambda: stage.store.is_told)
        client = await stage.client()
        assert "reset" not in await poll(client, "a,b", cursor="earliest", wait="0")
        assert (await poll(client, "a,b", cursor=cursor, wait="0"))["reset"] == ["a", "b"]

    play(scenario)


def test_a_poller_that_comes_back_after_its_grace_is_subscribed_again() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        client = await stage.client()
        cursor = await stage.publish("a")
        for _ in range(2):
            await poll(client, "a", cursor=cursor, wait="0")
        await stage.hub.let_pass(10)
        assert stage.count("a") == 0
        await stage.publish("a")
        assert numbers(await poll(client, "a", cursor=cursor, wait="0")) == [2]
        assert stage.count("a") == 1

    play(scenario)


def test_a_repeated_poll_whose_grant_has_ended_is_admitted_anew() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        cursor = await stage.publish("a")
        for _ in range(2):
            await poll(client, "a", cursor=cursor, wait="0")
        (connection,) = [c for c in stage.hub.sockets.connections() if c.channels]
        grant = connection.grant
        assert grant is not None
        await poll(client, "a", cursor=cursor, wait="0")
        assert connection.grant is grant
        grant.until = REVOKED
        await poll(client, "a", cursor=cursor, wait="0")
        assert connection.grant is not grant

    play(scenario)


def test_polls_of_a_draining_server_are_answered_with_when_to_come_back() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client()
        cursor = await stage.publish("a")
        assert "retry" not in await poll(client, "a", cursor=cursor, wait="0")
        stage.hub._context.draining = True
        for _ in range(2):
            answer = await poll(client, "a", cursor=cursor, wait="0")
            assert 2000 <= answer["retry"] <= 5000

    play(scenario)
