"""Which witness tells that a server's log lost its tail: two nodes, a client, and asynchronous replication.

A fail-over keeps any prefix of what was done. A node may die, and the client comes to the other one. The rule that is
built (``link.Link.identify``) asks for the server's identity on each new connection, before anything is read or
appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

from .explore import explore

GIVEN_TWICE = "one id is given twice within an epoch"
TWICE = "a message is delivered twice"
HOLE = "a later message is delivered, an earlier one never, and nothing is said"
LOST = "an acknowledged message is lost and the epoch stays"


class Message(NamedTuple):
    number: int


class Epoch(NamedTuple):
    number: int
    identity: int  # of the server that it was made on


class Node(NamedTuple):
    alive: bool = True
    server: int = 0  # that it is connected to
    epoch: int = 1
    log: tuple[int, ...] = ()


class Client(NamedTuple):
    node: int = 0
    epoch: int = 1
    cursor: int = 0
    base: int = 0  # where it stood after the last reset
    got: frozenset[int] = frozenset()  # since then
    ever: frozenset[int] = frozenset()


class World(NamedTuple):
    done: tuple[Message | Epoch, ...]  # on the server that is the master now
    copied: int = 1  # how much of it the replica has
    server: int = 0
    epochs: int = 1
    nodes: tuple[Node, ...] = (Node(), Node())
    client: Client = Client()
    published: int = 0
    deaths: int = 0
    given: frozenset[tuple[int, int, int]] = frozenset()  # epoch, number, message
    acknowledged: frozenset[tuple[int, int]] = frozenset()  # message, epoch
    wrong: str | None = None

    @property
    def log(self) -> tuple[int, ...]:
        return tuple(done.number for done in self.done if isinstance(done, Message))

    @property
    def epoch(self) -> Epoch:
        return [done for done in self.done if isinstance(done, Epoch)][-1]

    def with_node(self, index: int, node: Node) -> World:
        return self._replace(nodes=(*self.nodes[:index], node, *self.nodes[index + 1 :]))

    def give(self, epoch: int, number: int, message: int) -> World:
        wrong = any((e, n) == (epoch, number) and m != message for e, n, m in self.given)
        return self._replace(given=self.given | {(epoch, number, message)}, wrong=GIVEN_TWICE if wrong else self.wrong)


class Failover:
    """``asks``: the identity is asked for; else the chain and the node's last entry are all that there is.
    ``new_at``: what makes an identity new.
    """

    def __init__(
        self, asks: bool, messages: int = 3, failovers: int = 1, deaths: int = 1, new_at: str = "promotion"
    ) -> None:
        self._asks = asks
        self._messages = messages
        self._failovers = failovers
        self._deaths = deaths
        self._new_at = new_at

    def initial(self) -> World:
        return World((Epoch(1, self._identity(0)),))

    def fault(self, world: World) -> str | None:
        return world.wrong

    def is_complete(self, world: World) -> bool | None:
        return None

    def _identity(self, server: int) -> int:
        """There and back again is the first process, but another promotion."""
        return server if self._new_at == "promotion" else server % 2

    def steps(self, world: World) -> Iterable[tuple[str, World]]:
        yield from self._publish(world)
        if world.copied < len(world.done):
            yield "the replica gets one more", world._replace(copied=world.copied + 1)
        if world.server < self._failovers:
            kept = world.done[: world.copied]
            yield f"fail-over: {len(world.done) - len(kept)} lost", world._replace(done=kept, server=world.server + 1)
        for index, node in enumerate(world.nodes):
            if not node.alive:
                continue
            if world.deaths < self._deaths:
                yield f"node {index} dies", world.with_node(index, Node(False, -1))._replace(deaths=world.deaths + 1)
            if node.server != world.server:
                yield f"node {index} connects", self._connect(world, index, node)
            else:
                yield from self._follow(world, index, node)
        yield from self._serve(world)
        if self._settled(world) and any(e == world.epoch.number and m not in world.log for m, e in world.acknowledged):
            yield "all nodes have settled", world._replace(wrong=LOST)

    def _settled(self, world: World) -> bool:
        living = [node for node in world.nodes if node.alive]
        now = world.server, world.epoch.number, world.log
        return bool(living) and all((node.server, node.epoch, node.log) == now for node in living)

    def _publish(self, world: World) -> Iterator[tuple[str, World]]:
        if world.published == self._messages:
            return
        for index, node in enumerate(world.nodes):
            if node.alive and node.server == world.server and node.epoch == world.epoch.number:
                message, number = world.published + 1, len(world.log) + 1
                after = world._replace(
                    done=(*world.done, Message(message)),
                    published=message,
                    acknowledged=world.acknowledged | {(message, node.epoch)},
                )
                yield f"node {index} publishes m{message}", after.give(node.epoch, number, message)

    def _renew(self, world: World, seen: int) -> World:
        if world.epoch.number != seen:
            return world
        epoch = Epoch(world.epochs + 1, self._identity(world.server))
        return world._replace(done=(*world.done, epoch), epochs=epoch.number)

    def _load(self, world: World, index: int) -> World:
        return world.with_node(index, Node(True, world.server, world.epoch.number, world.log))

    def _connect(self, world: World, index: int, node: Node) -> World:
        after = world.with_node(index, node._replace(server=world.server))
        lost = world.log[: len(node.log)] != node.log
        if self._asks and world.epoch.identity != self._identity(world.server):
            after = self._renew(after, world.epoch.number)
        elif lost:
            after = self._renew(after, node.epoch)
        return self._load(after, index) if lost or after.epoch.number != node.epoch else after

    def _follow(self, world: World, index: int, node: Node) -> Iterator[tuple[str, World]]:
        log, number = world.log, len(node.log)
        if world.epoch.number != node.epoch:
            yield f"node {index} meets another epoch", self._load(world, index)
        elif log[:number] != node.log:
            yield f"node {index} finds the chain broken", self._load(self._renew(world, node.epoch), index)
        elif len(log) > number:
            yield (
                f"node {index} reads m{log[number]}",
                world.with_node(index, node._replace(log=(*node.log, log[number]))),
            )

    def _serve(self, world: World) -> Iterator[tuple[str, World]]:
        client = world.client
        for index, node in enumerate(world.nodes):
            if node.alive and client.node != index:
                yield f"the client comes to node {index}", world._replace(client=client._replace(node=index))
        node = world.nodes[client.node]
        if not node.alive:
            return
        if client.epoch != node.epoch:
            head = len(node.log)
            reset = client._replace(epoch=node.epoch, cursor=head, base=head, got=frozenset())
            yield "reset", world._replace(client=reset)
        elif client.cursor < len(node.log):
            message = node.log[client.cursor]
            after = world._replace(
                client=client._replace(
                    cursor=client.cursor + 1, got=client.got | {message}, ever=client.ever | {message}
                )
            )
            if message in client.ever:
                after = after._replace(wrong=TWICE)
            elif not client.got.issuperset(node.log[client.base : client.cursor]):
                after = after._replace(wrong=HOLE)
            else:
                after = after.give(node.epoch, client.cursor + 1, message)
            yield f"node {client.node} delivers m{message}", after


@pytest.mark.parametrize(("messages", "failovers", "deaths"), [(3, 1, 1), (2, 2, 1)])
def test_a_node_that_asks_for_the_identity_on_each_connection_misses_no_loss(
    messages: int, failovers: int, deaths: int
) -> None:
    explored = explore(Failover(True, messages, failovers, deaths))
    assert explored.whole
    assert explored.faults == {}


def test_a_chain_alone_does_not_tell_who_had_not_read_what_was_lost() -> None:
    explored = explore(Failover(False))
    assert set(explored.faults) == {GIVEN_TWICE, LOST}  # what comes of an id that is given twice is not explored
    assert len(explored.faults[GIVEN_TWICE]) == 4, explored.faults[GIVEN_TWICE]


def test_the_identity_of_the_process_alone_comes_back_with_a_second_failover() -> None:
    explored = explore(Failover(True, messages=2, failovers=2, deaths=0, new_at="start"), limit=200_000)
    assert explored.faults
