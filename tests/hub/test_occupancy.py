"""Which changes are told, by whom, how often: occupancy by itself, and over several processes that come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from pushcompat.changes import Change
from pushcompat.hub import occupancy as module
from pushcompat.hub.history import History
from pushcompat.hub.occupancy import Occupancy
from pushcompat.limits import Retention
from pushcompat.store.base import StoreError
from pushcompat.store.presence import LEASE_S, Changes, Peers

from ..store.registry import LocalRegistry

SETTLE_S = 5.0


class Application:
    """What was sent to it; ``takes`` says whether it takes what comes."""

    def __init__(self) -> None:
        self.takes = True
        self.received: list[Change] = []

    @property
    def heard(self) -> list[tuple[str, str, int]]:
        return [(change.kind, change.channel, change.subscribers) for change in self.received]

    @property
    def believes(self) -> set[str]:
        """Channels that are occupied, to one that knows changes by their ids."""
        occupied, known = set(), set()
        for change in self.received:
            if change.id not in known:
                known.add(change.id)
                (occupied.add if change.kind == "occupied" else occupied.discard)(change.channel)
        return occupied


class Sender:
    """Sends at once, or keeps what the application does not take."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.hears = True  # that a change was taken
        self.waiting: list[Change] = []

    def start(self, on_accepted: Callable[[Change], None]) -> None:
        self._on_accepted = on_accepted

    def notify(self, change: Change) -> None:
        self.waiting.append(change)
        self.go_on()

    def go_on(self) -> None:
        while self.waiting and self._application.takes:
            change = self.waiting.pop(0)
            self._application.received.append(change)
            if self.hears:
                self._on_accepted(change)

    def forget(self) -> None:
        self.waiting.clear()


class Node:
    """One process: its subscribers, and what sharing does with them."""

    def __init__(self, application: Application, registry: LocalRegistry | None = None, name: str = "p") -> None:
        self.now = 0.0
        self.registry = registry
        self.name = name
        self.history = History(Retention())
        self.sender = Sender(application)
        self.occupancy = Occupancy(self.history, SETTLE_S, self.sender, lambda: self.now)
        self.occupancy.start()
        self.changed: set[str] = set()
        self.peers = None if registry is None else Peers(registry, name, lambda: self.now)
        if self.peers is not None:
            self.history.others = self.peers.others

    def has(self, channel: str, count: int) -> None:
        self.history.channel(channel).beyond = count
        self.changed.add(channel)

    async def exchange(self) -> None:
        marks = self.occupancy.settle()
        changed, self.changed = self.changed, set()
        if self.peers is not None:
            counts = {name: self.history.subscribers(self.history.find(name)) for name in changed}
            try:
                changed |= set((await self.peers.exchange(Changes(counts, marks=marks))).changed)
            except StoreError:
                self.changed |= changed
                self.occupancy.failed(marks)
                return
        self.occupancy.saved()
        self.occupancy.look(changed)
        if self.occupancy.may_lead(first=self.peers is None or self.peers.first, alone=self.peers is None):
            await self.occupancy.lead({} if self.registry is None else await self.registry.marks())


async def let_pass(seconds: float, *nodes: Node) -> None:
    for _ in range(int(seconds * 2)):
        for node in nodes:
            node.now += 0.5
            await node.exchange()
            node.sender.go_on()


def play(scenario: Callable[[Application], Awaitable[None]]) -> None:
    asyncio.run(scenario(Application()))  # type: ignore[arg-type]


def test_a_channel_is_occupied_by_its_first_subscriber_and_vacated_by_its_last() -> None:
    async def scenario(application: Application) -> None:
        node = Node(application)
        await let_pass(1, node)
        for count in (1, 2, 1):
            node.has("a", count)
            await let_pass(10, node)
        assert application.heard == [("occupied", "a", 1)]
        node.has("a", 0)
        await let_pass(10, node)
        assert application.heard == [("occupied", "a", 1), ("vacated", "a", 0)]
        node.has("a", 3)
        await let_pass(10, node)
        assert application.heard[2:] == [("occupied", "a", 3)]
        assert len({change.id for change in application.received}) == 3

    play(scenario)


def test_a_change_that_does_not_last_is_not_reported() -> None:
    async def scenario(application: Application) -> None:
        node = Node(application)
        await let_pass(1, node)
        node.has("a", 1)
        await let_pass(SETTLE_S - 1, node)
        node.has("a", 0)
        await let_pass(20, node)
        assert application.heard == []
        node.has("a", 1)
        await let_pass(10, node)
        for _ in range(5):  # a page that reloads
            node.has("a", 0)
            await let_pass(SETTLE_S - 1, node)
            node.has("a", 1)
            await let_pass(SETTLE_S - 1, node)
        await let_pass(20, node)
        assert application.heard == [("occupied", "a", 1)]
        assert not node.occupancy._due

    play(scenario)


def test_while_a_change_is_on_its_way_the_next_ones_of_its_channel_merge() -> None:
    async def scenario(application: Application) -> None:
        node = Node(application)
        await let_pass(1, node)
        application.takes = False
        for count in (1, 0, 1, 0, 2, 0):
            node.has("a", count)
            await let_pass(10, node)
        assert [change.kind for change in node.sender.waiting] == ["occupied"]
        application.takes = True
        await let_pass(10, node)
        assert application.heard == [("occupied", "a", 1), ("vacated", "a", 0)]

    play(scenario)


def test_only_so_many_changes_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(application: Application) -> None:
        node = Node(application)
        await let_pass(1, node)
        application.takes = False
        for number in range(25):
            node.has(f"c{number}", 1)
        await let_pass(30, node)
        assert len(node.sender.waiting) == 10
        application.takes = True
        await let_pass(30, node)
        assert application.believes == {f"c{number}" for number in range(25)}
        assert len(application.received) == 25

    monkeypatch.setattr(module, "_MAX_PENDING", 10)
    play(scenario)


def test_one_of_several_processes_reports_changes() -> None:
    async def scenario(application: Application) -> None:
        registry = LocalRegistry()
        nodes = [Node(application, registry, f"p{number}") for number in range(3)]
        nodes[1].has("a", 1)
        nodes[2].has("a", 1)
        await let_pass(20, *nodes)
        assert application.heard == [("occupied", "a", 2)]
        nodes[1].has("a", 0)
        await let_pass(20, *nodes)
        assert len(application.heard) == 1
        nodes[2].has("a", 0)
        await let_pass(20, *nodes)
        assert application.heard[1:] == [("vacated", "a", 0)]

    play(scenario)


def test_a_process_reports_nothing_before_it_knows_that_it_is_the_first() -> None:
    async def scenario(application: Application) -> None:
        registry = LocalRegistry()
        one = Node(application, registry, "p1")
        application.takes = False
        one.has("b", 1)
        await let_pass(60, one)
        assert len(one.sender.waiting) == 1
        zero = Node(application, registry, "p0")  # from now on this one is the first
        one.has("a", 1)
        await let_pass(LEASE_S - 1, zero, one)
        assert (zero.occupancy.leading, one.occupancy.leading) == (False, False)
        assert one.sender.waiting == []
        application.takes = True
        await let_pass(20, zero, one)
        assert zero.occupancy.leading
        assert sorted(application.heard) == [("occupied", "a", 1), ("occupied", "b", 1)]

    play(scenario)


@pytest.mark.parametrize("taken", [False, True])
def test_a_change_that_a_dying_process_was_reporting_is_reported_by_the_next_with_the_same_id(taken: bool) -> None:
    async def scenario(application: Application) -> None:
        registry = LocalRegistry()
        first, second = Node(application, registry, "p0"), Node(application, registry, "p1")
        first.has("a", 3)
        second.has("a", 1)
        application.takes, first.sender.hears = taken, False
        await let_pass(20, first, second)
        kind, id, count = (await registry.marks())["a"].split()
        assert [change.id for change in application.received] == ([id] if taken else [])
        application.takes = True  # and the first is dead
        await let_pass(30, second)
        assert set(application.received) == {Change(id, kind, "a", int(count))} == {Change(id, "occupied", "a", 4)}
        assert await registry.marks() == {"a": "occupied"}

    play(scenario)


def test_a_restart_of_all_makes_no_noise_but_tells_of_those_that_did_not_come_back() -> None:
    async def scenario(application: Application) -> None:
        registry = LocalRegistry()
        before = Node(application, registry, "p0")
        for channel in "ab":
            before.has(channel, 1)
        await let_pass(20, before)
        assert sorted(application.heard) == [("occupied", "a", 1), ("occupied", "b", 1)]
        await registry.close("p0")
        after = Node(application, registry, "p1")
        await let_pass(2, after)
        after.has("a", 1)
        await let_pass(30, after)
        assert application.heard[2:] == [("vacated", "b", 0)]

    play(scenario)


def test_nothing_is_sent_that_the_next_could_not_know_of() -> None:
    async def scenario(application: Application) -> None:
        registry = LocalRegistry()
        node = Node(application, registry)
        await let_pass(10, node)
        registry.works = False
        node.has("a", 1)
        await let_pass(10, node)
        assert application.heard == []
        registry.works = True
        await let_pass(10, node)
        assert application.heard == [("occupied", "a", 1)]
        assert await registry.marks() == {"a": "occupied"}

    play(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_in_the_end_the_application_believes_what_is_whoever_died(seed: int) -> None:
    async def scenario(application: Application) -> None:
        chance, registry = random.Random(seed), LocalRegistry()
        nodes = [Node(application, registry, f"p{number}") for number in range(3)]
        born = len(nodes)
        for _ in range(60):
            act = chance.choice(["has", "has", "has", "die", "born", "registry", "takes", "pass", "pass"])
            if act == "has":
                chance.choice(nodes).has(chance.choice("abc"), chance.randrange(2))
            elif act == "die" and len(nodes) > 1:
                dead = nodes.pop(chance.randrange(len(nodes)))
                if chance.random() < 0.5:
                    await registry.close(dead.name)
            elif act == "born" and len(nodes) < 4:
                nodes.append(Node(application, registry, f"{chance.choice('oqp')}{born}"))
                born += 1
            elif act == "registry":
                registry.works = chance.random() < 0.8
            elif act == "takes":
                application.takes = chance.random() < 0.7
            await let_pass(chance.choice([0.5, 2, 8]), *nodes)
        registry.works = application.takes = True
        await let_pass(60, *nodes)
        occupied = {name for node in nodes for name in node.history.names if node.history.channel(name).beyond}
        assert application.believes == occupied
        assert await registry.marks() == dict.fromkeys(occupied, "occupied")

    play(scenario)
