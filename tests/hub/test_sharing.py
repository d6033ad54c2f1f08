"""Presence over several processes: hubs that share a log and a registry, in one event loop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from pushcompat import logs
from pushcompat.hub import ghosts as ghosts_module
from pushcompat.hub import sharing as module
from pushcompat.hub.connection import Connection
from pushcompat.limits import Limits
from pushcompat.message import Message
from pushcompat.store.presence import LEASE_S, Exchanged

from ..inprocess import LocalHub, running_hub
from ..parity.lossy import LossyStore
from ..store.registry import LocalRegistry
from .rig import Answer, Lines, Rig
from .stage import LocalClient
from .test_ghosts import RACE_S, ended, pong


class Node:
    def __init__(self, hub: LocalHub, store: LossyStore) -> None:
        self.hub = hub
        self.store = store
        self.clients: list[LocalClient] = []

    async def subscribed(self, wire: str, names: str, **params: str) -> LocalClient:
        client = LocalClient(self.hub, await self.hub.connect())
        self.clients.append(client)
        await client.subscribe(wire, names, **params)
        await self.hub.until_subscribed(client.socket)
        return client

    def count(self, name: str) -> int:
        """What a publisher is told here."""
        history = self.hub.history
        return history.subscribers_everywhere(name, history.find(name))

    @property
    def cursor(self) -> str:
        return self.hub.history.cursor(self.hub.history.head)


class Cluster:
    def __init__(self, nodes: list[Node], registry: LocalRegistry) -> None:
        self.nodes = nodes
        self.registry = registry

    async def exchange(self, rounds: int = 3) -> None:
        for _ in range(rounds):
            for node in self.nodes:
                await node.hub._subscriptions.sharing.exchange()

    async def let_pass(self, seconds: int, *alive: LocalClient) -> None:
        """Seconds in all processes, in which these clients answer pings."""
        for _ in range(seconds):
            for node in self.nodes:
                await node.hub.let_pass(1)
            for client in alive:
                await pong(client)
            await self.exchange(1)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)


@asynccontextmanager
async def started(number: int, limits: Limits) -> AsyncIterator[Cluster]:
    registry, store, nodes = LocalRegistry(), LossyStore(limits.retention), list[Node]()
    runs = [running_hub(store, limits, registry=registry) for _ in range(number)]
    try:
        for run in runs:
            hub = await run.__aenter__()
            sharing = hub._tasks.pop(0)  # exchanges are the test's
            sharing.cancel()
            await asyncio.gather(sharing, return_exceptions=True)
            await hub.stop_clock()
            await hub.let_pass(5)
            nodes.append(Node(hub, store))
        yield Cluster(nodes, registry)
    finally:
        for node in nodes:
            for client in node.clients:
                client.socket.close()
        for run in runs[: len(nodes)]:
            await run.__aexit__(None, None, None)


def play(scenario: Callable[[Cluster], Awaitable[None]], number: int = 2, limits: Limits | None = None) -> None:
    async def played() -> None:
        async with started(number, limits or Limits()) as cluster:
            await cluster.exchange()
            await scenario(cluster)

    asyncio.run(played())


def test_a_publisher_is_told_of_the_subscribers_of_all_processes() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.nodes
        for node in (one, two, two):
            await node.subscribed("websocket-json", "a")
        await two.subscribed("longpoll-json", "b", wait="20")
        await cluster.exchange()
        assert [node.count("a") for node in cluster.nodes] == [3, 3, 3]
        assert [node.count("b") for node in cluster.nodes] == [1, 1, 1]
        assert [node.hub.gauges()["subscribers"] for node in cluster.nodes] == [4, 4, 4]
        assert [node.hub.gauges()["presence_processes"] for node in cluster.nodes] == [3, 3, 3]
        two.clients[0].socket.close()
        await cluster.until(lambda: two.hub.subscribers == 2)
        await cluster.exchange()
        assert [node.count("a") for node in cluster.nodes] == [2, 2, 2]
        assert three.hub.history.find("a") is None  # it need not know the channel

    play(scenario, 3)


def test_the_spread_is_for_the_subscribers_of_all_processes() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.nodes
        for node in (one, two, two):
            await node.subscribed("websocket-json", "a")
        await cluster.exchange()
        assert one.hub.history.spread_ms(["a"]) == 3000

    play(scenario, limits=Limits(refetch_rate=1.0))


def test_a_client_that_tries_transports_of_several_processes_counts_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.nodes
        websocket = await one.subscribed("websocket-json", "a,b", client="tab")
        await cluster.exchange()
        stream = await two.subscribed("eventsource-json", "b,a", client="tab")
        await cluster.exchange()
        assert [node.count(name) for node in cluster.nodes for name in "ab"] == [1, 1, 1, 1]
        stream.socket.close()  # it lost the race
        await cluster.until(lambda: two.hub.subscribers == 0)
        await cluster.exchange()
        assert [node.count(name) for node in cluster.nodes for name in "ab"] == [1, 1, 1, 1]
        websocket.socket.close()
        await cluster.until(lambda: one.hub.subscribers == 0)
        await cluster.exchange()
        assert [node.count(name) for node in cluster.nodes for name in "ab"] == [0, 0, 0, 0]
        assert [len(node.hub._subscriptions.sharing._clients) for node in cluster.nodes] == [0, 0]

    play(scenario)


def test_a_poller_whose_polls_reach_one_process_after_the_other_counts_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        for turn in range(8):
            node = cluster.nodes[turn % 3]
            client = LocalClient(node.hub, await node.hub.connect())
            node.clients.append(client)
            await client.subscribe("longpoll-json", "a", cursor=node.cursor, wait="0", client="tab")
            await client.event()
            await cluster.let_pass(1)
            await cluster.exchange()
            assert [node.count("a") for node in cluster.nodes] == [1, 1, 1]
        await cluster.let_pass(12)
        assert [node.count("a") for node in cluster.nodes] == [0, 0, 0]

    play(scenario, 3)


def test_a_client_counts_again_where_it_still_is_when_the_process_that_it_came_to_dies() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.nodes
        await one.subscribed("websocket-json", "a", client="tab")
        await cluster.exchange()
        await two.subscribed("websocket-json", "a", client="tab")
        await cluster.exchange()
        assert one.hub.history.subscribers(one.hub.history.find("a")) == 0
        await cluster.registry.close(two.hub._subscriptions.sharing.process)
        await one.hub._subscriptions.sharing.exchange()
        assert one.count("a") == 1

    play(scenario)


def test_a_stream_is_ended_when_its_client_has_come_to_another_process() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.nodes
        ghost = await one.subscribed("eventsource-json", "a", client="tab")
        await cluster.let_pass(60)
        living = await two.subscribed("eventsource-json", "a", client="tab")
        await cluster.let_pass(RACE_S - 1)
        assert one.hub.subscribers == 1
        await cluster.let_pass(4)
        await ended(ghost)
        assert one.hub.metrics.unsubscribes == {"superseded": 1}
        await cluster.let_pass(10 * RACE_S)
        assert two.hub.subscribers == 1
        await two.store.publish(Message("a", b"x"))
        assert (await living.until("message")).data == "x"
        assert not one.hub._subscriptions.ghosts.elsewhere

    play(scenario)


def test_a_websocket_that_answers_here_is_alive_and_the_stream_elsewhere_is_the_ghost() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.nodes
        living = await one.subscribed("websocket-json", "a", client="tab")
        await cluster.let_pass(20, living)
        ghost = await two.subscribed("eventsource-json", "a", client="tab")
        await cluster.let_pass(2 * RACE_S + ghosts_module._ANSWER_S, living)
        await ended(ghost)
        assert (one.hub.subscribers, two.hub.subscribers) == (1, 0)
        assert [node.count("a") for node in cluster.nodes] == [1, 1]

    play(scenario)


def test_a_poller_that_stays_here_ends_the_stream_that_it_has_left_elsewhere() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.nodes
        ghost = await one.subscribed("eventsource-json", "a", client="tab")
        await cluster.let_pass(3)
        poller = await two.subscribed("longpoll-json", "a", client="tab", cursor=two.cursor)
        await cluster.let_pass(RACE_S + 2)
        await ended(ghost)
        assert [node.count("a") for node in cluster.nodes] == [1, 1]
        poller.socket.close()

    play(scenario)


def test_changes_during_a_failure_of_the_registry_are_sent_later() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = cluster.nodes
        stays = await one.subscribed("websocket-json", "a", client="tab")
        await cluster.exchange()
        cluster.registry.works = False
        await two.subscribed("websocket-json", "a,b", client="other")
        goes = await one.subscribed("websocket-json", "b", client="third")
        await cluster.exchange()
        stays.socket.close()
        goes.socket.close()
        await cluster.until(lambda: one.hub.subscribers == 0)
        await cluster.exchange()
        cluster.registry.works = True
        await cluster.exchange()
        assert [node.count(name) for node in cluster.nodes for name in "ab"] == [1, 1, 1, 1]

    play(scenario)


def test_a_registry_that_does_not_work_is_logged_once_and_when_it_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[str] = []
    monkeypatch.setattr(logs, "_level", logging.INFO)
    monkeypatch.setattr(logs, "_write", lambda entry: entries.append(entry[2]))

    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.pop()
        for works, rounds in ((False, 2), (True, 1), (False, 10), (True, 3)):
            cluster.registry.works = works
            await cluster.exchange(rounds)
        assert [name for name in entries if name.startswith("presence")] == ["presence_trouble", "presence_works"]

    play(scenario)


def test_a_bug_in_the_exchange_does_not_end_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(LocalRegistry):
        broken = True

        async def exchange(self, *rest: Any) -> Exchanged:
            if self.broken:
                self.broken = False
                raise ZeroDivisionError
            return await super().exchange(*rest)

    async def scenario() -> None:
        registry, store = Broken(), LossyStore(Limits().retention)
        async with running_hub(store, Limits(), registry=registry) as hub:
            async with asyncio.timeout(10):
                while not hub._subscriptions.sharing.peers or not hub._subscriptions.sharing.peers._beat:
                    await asyncio.sleep(0.01)
            assert not hub.failed.is_set()

    monkeypatch.setattr(module, "_AFTER_BUG_S", 0.0)
    asyncio.run(scenario())
    assert "BUG: presence cannot be exchanged" in caplog.text


def test_a_client_that_leaves_while_the_others_are_told_of_it_counts_where_it_still_is() -> None:
    async def scenario() -> None:
        registry = LocalRegistry()
        rigs = [Rig(Limits(), registry) for _ in range(2)]
        try:
            for _ in range(3):
                for rig in rigs:
                    await rig.subscriptions.sharing.exchange()
            subscribe(rigs[0], "tab", Lines(), "a")
            await rigs[0].subscriptions.sharing.exchange()
            loser = subscribe(rigs[1], "tab", Lines(), "a")
            exchange = asyncio.create_task(rigs[1].subscriptions.sharing.exchange())
            await asyncio.sleep(0)
            leave(rigs[1], loser, may_return=False)
            await exchange
            for _ in range(3):
                for rig in rigs:
                    await rig.subscriptions.sharing.exchange()
            for rig in rigs:
                assert rig.history.subscribers_everywhere("a", rig.history.find("a")) == 1
        finally:
            for rig in rigs:
                rig.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(12))
def test_each_client_counts_once_in_all_processes_whatever_clients_do(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        registry, now = LocalRegistry(), [0.0]
        rigs = [Rig(replace(Limits(), poll_grace_s=3.0), registry, lambda: now[0]) for _ in range(3)]
        try:
            await act(chance, rigs, now)
        finally:
            for rig in rigs:
                rig.close()

    asyncio.run(scenario())


async def act(chance: random.Random, rigs: list[Rig], now: list[float]) -> None:
    open_: list[tuple[Rig, Connection]] = []

    def come(rig: Rig) -> None:
        names = sorted(chance.sample("ab", chance.randint(1, 2)))
        client = f"c{chance.randrange(3)}{''.join(names)}"
        open_.append((rig, subscribe(rig, client, chance.choice([Lines(), Answer()]), *names)))

    def go() -> None:
        if open_:
            leave(*open_.pop(chance.randrange(len(open_))), may_return=chance.random() < 0.3)

    for _ in range(400):
        kind = chance.choice(["come", "come", "go", "exchange", "exchange", "exchange", "pass"])
        rig = chance.choice(rigs)
        if kind == "come":
            come(rig)
        elif kind == "go":
            go()
        elif kind == "exchange":
            exchange = asyncio.create_task(rig.subscriptions.sharing.exchange())
            await asyncio.sleep(0)
            for _ in range(chance.randrange(3)):  # meanwhile
                chance.choice([lambda rig=rig: come(rig), go])()  # type: ignore[misc]
            await exchange
        else:
            pass_second(rigs, now)
    for _ in range(int(LEASE_S) + 4):
        pass_second(rigs, now)
        for each in rigs:
            await each.subscriptions.sharing.exchange()
    for name in "ab":
        clients = {c.client for _, c in open_ if name in [channel.name for channel in c.channels]}
        for each in rigs:
            assert each.history.subscribers_everywhere(name, each.history.find(name)) == len(clients)
    for where, connection in open_:
        leave(where, connection, may_return=False)
    for _ in range(3):
        for each in rigs:
            await each.subscriptions.sharing.exchange()
    for each in rigs:
        assert not each.subscriptions.sharing._clients
        assert not each.history.others
        assert len(each.history) == 0


def subscribe(rig: Rig, client: str, encoding: Lines, *names: str) -> Connection:
    connection = rig.connect()
    connection.subscribe(tuple(map(rig.history.channel, names)), encoding, client, rig.context.timers.now)
    rig.subscriptions.presence.enter(connection)
    return connection


def leave(rig: Rig, connection: Connection, may_return: bool) -> None:
    channels = connection.channels
    connection.unsubscribe()
    rig.subscriptions.presence.leave(connection, channels, None, may_return)


def pass_second(rigs: list[Rig], now: list[float]) -> None:
    now[0] += 1.0
    for rig in rigs:
        rig.context.timers.now += 1
        rig.subscriptions.presence.tick()
        rig.subscriptions.sharing.tick()
