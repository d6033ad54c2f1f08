"""Streams whose client has gone and that a proxy keeps open: which are ended, and that no living one is for good."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pushcompat import logs
from pushcompat.hub import ghosts as module

from ..harness import PATIENCE_S, client_frame
from ..inprocess import LocalHub
from ..parity.wires import Event
from .stage import LocalClient, Stage, play

RACE_S = module.RACE_S + 1  # and it is looked at in the second after
STREAMS = ["websocket-json", "websocket-text", "eventsource-json", "eventsource-text"]


async def stopped(stage: Stage) -> LocalHub:
    await stage.hub.stop_clock()
    await stage.hub.let_pass(5)
    return stage.hub


async def pong(client: LocalClient) -> None:
    await asyncio.get_running_loop().sock_sendall(client.socket, client_frame(0x8A))
    await client.hub.until_idle()


async def ended(client: LocalClient) -> Event:
    """The stream is told to come back, and ends."""
    rotate = await client.until("rotate" if client._wire.says_cursor else "closed")
    loop = asyncio.get_running_loop()
    if client._wire.transport == "websocket":
        await loop.sock_sendall(client.socket, client_frame(0x88, b"\3\xf4"))
    async with asyncio.timeout(PATIENCE_S):
        while await loop.sock_recv(client.socket, 1 << 16):
            pass
    client.socket.close()
    return rotate


@pytest.mark.parametrize("newer", ["eventsource-json", "eventsource-text"])
@pytest.mark.parametrize("older", STREAMS)
def test_an_older_stream_of_the_same_client_is_ended_once_no_race_can_be_under_way(
    older: str, newer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(logs, "_level", logging.DEBUG)
    monkeypatch.setattr(logs, "_write", lambda entry: entries.append((entry[2], entry[3])))

    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        ghost = await stage.subscribed(older, "a,b", client="tab")
        await hub.let_pass(60)
        living = await stage.subscribed(newer, "b,a", client="tab")
        await hub.let_pass(RACE_S - 1)
        assert (hub.subscribers, hub.metrics.unsubscribes.total()) == (2, 0)
        await hub.let_pass(1 + module._ANSWER_S)
        await ended(ghost)
        assert hub.metrics.unsubscribes == {"superseded": 1}
        assert [fields["reason"] for name, fields in entries if name == "unsubscribe"] == ["superseded"]
        assert stage.count("a") == 1
        await stage.publish("a")
        assert (await living.until("message")).data == "a"

    play(scenario)


def test_one_that_comes_back_in_the_same_second_counts_as_newer() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        ghosts = [await stage.subscribed("eventsource-json", "a", client="tab") for _ in range(5)]
        living = ghosts.pop()
        await hub.let_pass(RACE_S)
        for ghost in ghosts:
            await ended(ghost)
        assert hub.subscribers == 1
        await stage.publish("a")
        assert (await living.until("message")).data == "a"

    play(scenario)


@pytest.mark.parametrize(
    ("names", "clients"), [(("a", "b"), ("tab", "tab")), (("a", "a,b"), ("tab", "tab")), (("a", "a"), ("tab", "other")),
                           (("a", "a"), ("", ""))],
)  # fmt: skip
def test_other_channels_other_clients_and_clients_without_a_name_are_left_alone(
    names: tuple[str, str], clients: tuple[str, str]
) -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        for channels, client in zip(names, clients, strict=True):
            for _ in range(1 if client else 2):
                await stage.subscribed("eventsource-json", channels, client=client)
        before = hub.subscribers
        await hub.let_pass(10 * RACE_S)
        assert hub.subscribers == before

    play(scenario)


def test_a_stream_that_has_just_come_is_not_judged_with_those_that_were_there_before() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        for _ in range(2):
            stream = await stage.subscribed("eventsource-json", "a", client="tab")
        await hub.let_pass(RACE_S - 3)
        stage._clients[0].socket.close()  # the race between these two is over
        await stage.until(lambda: hub.subscribers == 1)
        attempt = await stage.subscribed("eventsource-json", "a", client="tab")  # a better network, perhaps
        await hub.let_pass(RACE_S - 2)
        assert hub.subscribers == 2
        attempt.socket.close()
        await stage.until(lambda: hub.subscribers == 1)
        await hub.let_pass(10 * RACE_S)
        await stage.publish("a")
        assert (await stream.until("message")).data == "a"

    play(scenario)


def test_a_client_that_tries_again_and_again_leaves_but_a_few() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        for _ in range(20):  # each time it gives up after 10 s, which the proxy does not tell
            await stage.subscribed("eventsource-json", "a", client="tab")
            await hub.let_pass(10)
            assert hub.subscribers <= 4
        assert stage.count("a") == 1

    play(scenario)


def test_a_websocket_that_answers_is_alive_and_an_event_stream_that_came_later_is_the_ghost() -> None:
    """The WebSocket won a race that the event stream joined late, and the proxy did not notice that the latter left."""

    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        living = await stage.subscribed("websocket-json", "a", client="tab")
        await hub.let_pass(3)
        ghost = await stage.subscribed("eventsource-json", "a", client="tab")
        await hub.let_pass(RACE_S)
        assert hub.subscribers == 2  # it is asked
        await pong(living)
        await hub.let_pass(module._ANSWER_S)
        await ended(ghost)
        assert hub.subscribers == 1
        await hub.let_pass(RACE_S)
        assert hub.subscribers == 1

    play(scenario)


def test_two_websockets_that_both_answer_are_both_alive() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        tabs = [await stage.subscribed("websocket-json", "a", client="shared") for _ in range(2)]
        for _ in range(6):
            await hub.let_pass(RACE_S)
            for tab in tabs:
                await pong(tab)
        assert hub.subscribers == 2

    play(scenario)


def test_a_websocket_that_never_answers_is_the_ghost_beside_an_event_stream() -> None:
    """A better transport was tried, and the proxy kept what the client had given up."""

    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        living = await stage.subscribed("eventsource-json", "a", client="tab")
        await hub.let_pass(60)
        ghost = await stage.subscribed("websocket-json", "a", client="tab")
        await hub.let_pass(RACE_S + module._ANSWER_S)
        await ended(ghost)
        await stage.publish("a")
        assert (await living.until("message")).data == "a"

    play(scenario)


def test_a_poll_ends_a_stream_only_if_it_came_long_after_the_stream_began() -> None:
    """The page went on by polls: but a race that polls have lost must not cost the stream that has won it."""

    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        stream = await stage.subscribed("eventsource-json", "a", client="tab")
        poller = await stage.client()
        await hub.let_pass(3)
        await poller.subscribe("longpoll-json", "a", cursor=stage.head, client="tab")
        await hub.until_subscribed(poller.socket)
        await hub.let_pass(25)
        await poller.event()
        assert hub.subscribers == 2  # the poll began during the race
        await poller.subscribe("longpoll-json", "a", cursor=stage.head, client="tab")
        await hub.until_subscribed(poller.socket)
        await hub.let_pass(RACE_S)
        await ended(stream)
        assert stage.count("a") == 1

    play(scenario)


def test_a_stream_that_takes_over_from_polls_stays() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        poller = await stage.client()
        await poller.subscribe("longpoll-json", "a", cursor=stage.head, client="tab")
        await hub.until_subscribed(poller.socket)
        await hub.let_pass(10)
        stream = await stage.subscribed("eventsource-json", "a", client="tab")
        await hub.let_pass(1)
        await stage.publish("a")
        await poller.until("ping")  # and does not poll again, but a proxy keeps its connection
        await hub.let_pass(10 * RACE_S)
        assert hub.subscribers == 1
        assert (await stream.until("message")).data == "a"

    play(scenario)


def test_a_living_stream_that_was_ended_wrongly_comes_back_and_then_the_ghost_is_ended() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        living = await stage.subscribed("eventsource-json", "a", client="tab")
        await hub.let_pass(1)
        ghost = await stage.subscribed("eventsource-json", "a", client="tab")
        await hub.let_pass(RACE_S)
        rotate = await ended(living)
        assert rotate.cursor is not None
        missed = await stage.publish("a")
        living = await stage.subscribed("eventsource-json", "a", client="tab", cursor=rotate.cursor)
        assert (await living.until("message")).cursor == missed
        await hub.let_pass(2 * RACE_S)
        await ended(ghost)
        await hub.let_pass(20 * RACE_S)
        assert hub.subscribers == 1

    play(scenario)


def test_two_clients_that_share_a_name_end_each_other_ever_more_rarely() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        tabs = [await stage.subscribed("eventsource-json", "a", client="shared") for _ in range(2)]
        waits = []
        for _ in range(5):
            waits.append(0)
            while hub.subscribers == 2 and waits[-1] < 1000:
                await hub.let_pass(1)
                waits[-1] += 1
            await ended(tabs.pop(0))
            tabs.append(await stage.subscribed("eventsource-json", "a", client="shared"))
        assert waits == [(RACE_S - 1) * 2**n + 1 for n in range(5)]

    play(scenario)


def test_clients_that_share_a_name_are_remembered_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        for number in range(8):
            for _ in range(2):
                await stage.subscribed("eventsource-json", "a", client=f"c{number}")
        await hub.let_pass(RACE_S)
        assert hub.subscribers == 16 - 3  # so many are looked at in a second
        await hub.let_pass(3)
        assert hub.subscribers == 8
        assert len(hub._subscriptions.ghosts._ended) == 4
        assert not hub._subscriptions.ghosts._pending

    monkeypatch.setattr(module, "_CHECKS_PER_S", 3)
    monkeypatch.setattr(module, "_MAX_REMEMBERED", 4)
    play(scenario)


# WebSockets that answer no more


def test_a_websocket_that_has_answered_pings_and_answers_no_more_is_cut() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        client = await stage.subscribed("websocket-json", "a")
        await hub.let_pass(16)
        await pong(client)
        await hub.let_pass(29)
        assert hub.subscribers == 1
        await hub.let_pass(31)
        assert hub.metrics.unsubscribes == {"ping_timeout": 1}

    play(scenario)


def test_one_that_never_answers_and_one_that_answers_late_stay() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        clients = [await stage.subscribed("websocket-json", "a") for _ in range(2)]
        await hub.let_pass(16)
        await pong(clients[0])
        for _ in range(5):
            await hub.let_pass(28)
            await pong(clients[0])
        assert hub.subscribers == 2

    play(scenario)


def test_an_answer_that_this_process_has_not_read_yet_counts() -> None:
    async def scenario(stage: Stage) -> None:
        hub = await stopped(stage)
        client = await stage.subscribed("websocket-json", "a")
        await hub.let_pass(16)
        await pong(client)
        await hub.let_pass(29)
        (connection,) = hub.sockets.connections()
        hub.sockets.pause(connection)
        await asyncio.get_running_loop().sock_sendall(client.socket, client_frame(0x8A))
        await hub.let_pass(60)
        assert hub.subscribers == 1

    play(scenario)
