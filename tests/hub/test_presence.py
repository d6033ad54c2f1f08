"""Who counts: named clients once, whatever they have; pollers also behind proxies that hand connections round."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import pytest

from pushcompat.hub import presence as module
from pushcompat.hub.connection import Connection
from pushcompat.limits import Limits

from ..harness import KEY
from ..parity.wires import WIRES
from .rig import Answer, Rig
from .stage import Stage, play


@pytest.mark.parametrize("next_channel", ["a", "b"])
def test_a_poller_whose_connection_goes_to_another_client_still_counts(next_channel: str) -> None:
    async def scenario(stage: Stage) -> None:
        pooled = await stage.client()
        for name, channel in (("one", "a"), ("two", next_channel)):
            await pooled.subscribe("longpoll-json", channel, cursor=stage.head, wait="0", client=name)
            await pooled.event()
        assert stage.count("a") == (2 if next_channel == "a" else 1)
        assert stage.hub.metrics.unsubscribes == {"connection_reused": 1}
        await stage.hub.stop_clock()
        await stage.hub.let_pass(int(Limits().poll_grace_s) + 1)
        assert stage.count("a") == 0
        assert not stage.hub._subscriptions.presence._absent

    play(scenario)


def test_pollers_that_a_proxy_hands_from_one_connection_to_the_other_count_once_each() -> None:
    async def scenario(stage: Stage) -> None:
        pool = [await stage.client() for _ in range(3)]
        for turn in range(8):
            for number in range(2):
                connection = pool[(turn + number) % 3]
                await connection.subscribe("longpoll-json", "a", cursor=stage.head, wait="0", client=f"c{number}")
                await connection.event()
                assert stage.count("a") == (1 if turn == number == 0 else 2)

    play(scenario)


def test_a_poller_whose_connection_is_taken_by_one_without_a_name_still_counts() -> None:
    async def scenario(stage: Stage) -> None:
        pooled = await stage.client()
        await pooled.subscribe("longpoll-json", "a", cursor=stage.head, wait="0", client="one")
        await pooled.event()
        await pooled.subscribe("longpoll-json", "a", cursor=stage.head, wait="0")
        await pooled.event()
        assert stage.count("a") == 2

    play(scenario)


def test_a_client_counts_once_whatever_transports_it_tries() -> None:
    async def scenario(stage: Stage) -> None:
        clients = []
        for wire in WIRES:
            clients.append(await stage.subscribed(wire, "a,b", client="tab", wait="20"))
            assert (stage.count("a"), stage.count("b")) == (1, 1)
        other = await stage.subscribed("websocket-json", "a", client="another tab")
        nobody = await stage.subscribed("websocket-json", "a")
        assert (stage.count("a"), stage.count("b")) == (3, 1)
        for client in (*clients, other):
            assert stage.count("a") > 1
            client.socket.close()
            left = len(clients) + 2
            await stage.until(lambda left=left: stage.hub.subscribers < left)  # type: ignore[misc]
        await stage.until(lambda: stage.hub.subscribers == 1)
        assert (stage.count("a"), stage.count("b")) == (1, 0)
        nobody.socket.close()
        await stage.until(lambda: stage.hub.subscribers == 0)
        assert len(stage.hub.history) == 0

    play(scenario)


def test_a_publisher_is_told_of_each_client_once() -> None:
    async def scenario(stage: Stage) -> None:
        for wire in ("websocket-json", "eventsource-json"):
            await stage.subscribed(wire, "a", client="tab")
        publisher = await stage.client()
        request = f"POST /channels/a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1\r\n\r\nx"
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(publisher.socket, request.encode())
        assert b'{"subscribers":1}' in await loop.sock_recv(publisher.socket, 1 << 16)

    play(scenario)


def test_a_poller_that_is_back_takes_its_own_place_and_nobody_elses(rig: Rig) -> None:
    for name in ("one", "two", ""):
        poll(rig, name, "a", may_return=True)
    assert count(rig, "a") == 3
    back = poll(rig, "two", "a")
    assert count(rig, "a") == 3
    rig.context.timers.now += 100
    rig.subscriptions.tick()
    assert count(rig, "a") == 1
    leave(rig, back, may_return=False)
    assert count(rig, "a") == 0
    assert len(rig.history) == 0


def test_places_of_pollers_are_bounded_whether_they_have_names_or_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_ABSENT", 6)
    for number in range(50):
        poll(rig, f"c{number}", "a", may_return=True)
        poll(rig, "", f"n{number}", may_return=True)
    assert count(rig, "a") == 3
    assert len(rig.history) == 4
    assert len(rig.history.channel("a").clients or ()) == 3


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_right_whatever_clients_do(rig: Rig, seed: int) -> None:
    """Against the plain definition: a name counts once in a channel, while it has a connection or a place there."""
    chance = random.Random(seed)
    open_: list[Connection] = []
    places: dict[str, dict[str, int]] = defaultdict(dict)  # until when, by channel and name
    for _ in range(300):
        now = rig.context.timers.now
        act = chance.choice(["come", "come", "go", "go", "pass"])
        if act == "come":
            names = tuple(chance.sample("abc", chance.randint(1, 3)))
            client = chance.choice(["one", "two", "three"])
            open_.append(poll(rig, client, *names))
            for name in names:
                places[name].pop(client, None)
        elif act == "go" and open_:
            gone = open_.pop(chance.randrange(len(open_)))
            may_return = chance.random() < 0.5
            if may_return:
                for channel in gone.channels:
                    places[channel.name][gone.client] = now + 10
            leave(rig, gone, may_return)
        elif act == "pass":
            rig.context.timers.now += chance.randint(1, 8)
            rig.subscriptions.tick()
        now = rig.context.timers.now
        for name in "abc":
            present = {c.client for c in open_ if name in [channel.name for channel in c.channels]}
            waiting = {client for client, until in places[name].items() if until > now}
            assert count(rig, name) == len(present | waiting)
    for connection in open_:
        leave(rig, connection, may_return=False)
    rig.context.timers.now += 100
    rig.subscriptions.tick()
    assert len(rig.history) == 0


def poll(rig: Rig, client: str, *names: str, may_return: bool | None = None) -> Connection:
    """Enters; and leaves again, if ``may_return`` is given."""
    connection = rig.connect()
    channels = tuple(rig.history.channel(name) for name in names)
    connection.subscribe(channels, Answer(), client, rig.context.timers.now)
    rig.subscriptions.presence.enter(connection)
    if may_return is not None:
        leave(rig, connection, may_return)
    return connection


def leave(rig: Rig, connection: Connection, may_return: bool) -> None:
    channels = connection.channels
    connection.unsubscribe()
    rig.subscriptions.presence.leave(connection, channels, None, may_return)


def count(rig: Rig, name: str) -> int:
    return rig.history.subscribers(rig.history.find(name))
