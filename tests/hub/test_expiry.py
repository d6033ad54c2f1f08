"""What ends when a subscriber's grant does: streams, held polls, and clients between two polls."""

from __future__ import annotations

from collections import Counter

import pytest

from pushcompat.access.grant import Grant
from pushcompat.hub.connection import Connection, State
from pushcompat.limits import Limits

from ..machine import interpreted_only
from ..parity.wires import CLOSED
from .stage import LocalClient, Stage, play

STREAMS = ["websocket-json", "eventsource-json"]


def admit_until(stage: Stage, ahead_s: int) -> list[Grant]:
    """From now on every subscriber is admitted for that many seconds; returns the grants as they are made."""
    made: list[Grant] = []

    def admit(_request: object, _names: object = ()) -> Grant:
        made.append(Grant(until=stage.hub.timers.now + ahead_s))
        return made[-1]

    stage.hub.access.admit = admit  # type: ignore[method-assign, assignment]
    return made


def only(stage: Stage) -> Connection:
    (connection,) = stage.hub.sockets.connections()
    return connection


async def ends(client: LocalClient, wire: str) -> None:
    """Reads ``expired`` and the end that the transport has for it."""
    assert (await client.until("expired")).cursor == client.hub.history.cursor(client.hub.history.head)
    if wire.startswith("websocket"):
        closed = await client.event()
        assert (closed.kind, closed.data) == ("closed", 4401)
    else:
        assert await client.ended() == CLOSED


@interpreted_only
@pytest.mark.parametrize("wire", STREAMS)
def test_a_stream_whose_time_is_over_says_expired_and_ends(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        admit_until(stage, 5)
        client = await stage.subscribed(wire, "a")
        await stage.hub.let_pass(4)
        await stage.publish("a")
        await client.until("message")
        assert only(stage).state is State.STREAMING
        await stage.hub.let_pass(1)
        await ends(client, wire)
        assert stage.hub.metrics.unsubscribes == Counter({"expired": 1})

    play(scenario)


@interpreted_only
def test_an_expiry_before_the_request_cap_is_no_rotation_and_one_after_it_is() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        admit_until(stage, 3)
        sooner = await stage.subscribed("websocket-json", "a")
        await stage.hub.let_pass(3)
        assert (await sooner.until("expired")).retry is None
        admit_until(stage, 60)
        later = await stage.subscribed("websocket-json", "a")
        await stage.hub.let_pass(30)
        await later.until("rotate")

    play(scenario, Limits(request_cap_s=30))


@interpreted_only
def test_a_held_poll_is_answered_when_its_time_is_over_and_the_next_one_is_decided_again() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        grants = admit_until(stage, 5)
        client = await stage.subscribed("longpoll-json", "a", cursor=stage.head)
        await stage.hub.let_pass(4)
        assert only(stage).state is State.POLLING
        await stage.hub.let_pass(1)
        assert (await client.event()).kind == "ping"
        await client.subscribe("longpoll-json", "a", cursor=stage.head)
        await stage.hub.until_idle()
        assert len(grants) == 2, "not compared with the poll before it"

    play(scenario)


@interpreted_only
def test_a_repeated_poll_rests_on_its_own_grant_not_on_that_of_a_publish_between() -> None:
    """A proxy may send the requests of several clients on one connection."""

    async def scenario(stage: Stage) -> None:
        await stage.hub.stop_clock()
        grants = admit_until(stage, 5)
        client = await stage.subscribed("longpoll-json", "a", cursor=stage.head, wait="0.1")
        assert (await client.event()).kind == "ping"
        only(stage).grant = Grant("publisher")
        await client.subscribe("longpoll-json", "a", cursor=stage.head, wait="0.1")
        assert (await client.event()).kind == "ping"
        assert len(grants) == 1
        await stage.hub.let_pass(5)
        only(stage).grant = Grant("publisher")
        await client.subscribe("longpoll-json", "a", cursor=stage.head, wait="0.1")
        assert (await client.event()).kind == "ping"
        assert len(grants) == 2

    play(scenario)


@pytest.mark.parametrize("wire", STREAMS)
def test_a_stream_can_be_ended_before_its_time(wire: str) -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed(wire, "a")
        await client.until("open")
        stage.hub.end_expired(only(stage))
        await ends(client, wire)
        assert stage.count("a") == 0

    play(scenario)


def test_a_held_poll_can_be_ended_and_so_can_a_client_between_two_polls() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.subscribed("longpoll-json", "a", cursor=stage.head)
        stage.hub.end_expired(only(stage))
        assert (await client.event()).kind == "ping"
        assert (stage.count("a"), only(stage).state, only(stage).subscriber) == (0, State.READING_HEAD, None)
        await client.subscribe("longpoll-json", "a", cursor=stage.head, wait="0.1")
        assert (await client.event()).kind == "ping"
        assert stage.count("a") == 1
        stage.hub.end_expired(only(stage))
        assert stage.count("a") == 0
        assert only(stage).poll_template is None

    play(scenario)


def test_a_client_that_does_not_read_is_cut_off_when_its_time_is_over() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.subscribed("websocket-json", "a")
        connection = only(stage)
        connection.unsent = memoryview(b"x")
        stage.hub.sockets._hold(b"x")
        stage.hub.end_expired(connection)
        assert connection.state is State.CLOSED
        assert stage.hub.metrics.unsubscribes == Counter({"expired": 1})

    play(scenario)
