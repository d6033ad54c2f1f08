"""Which groups the log stores twice: answers are lost, copies of commands arrive later, fences run out.

A node sends a group until it is answered or patience ends. The network may hold a copy of any command, and deliver it
at any time. The rule that is built (``writer.Writer``, ``scripts.APPEND``) numbers groups under a name that
registration alone makes, and keeps a group's number when the epoch changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

from .explore import explore

TWICE = "a publish is in the log twice"


class Command(NamedTuple):
    fence: int
    group: int
    epoch: int
    publish: int


class Node(NamedTuple):
    fence: int = 1  # its name
    group: int = 0
    epoch: int = 1
    doing: int | None = None  # the publish that has no answer yet
    tries: int = 0
    unanswered: bool = False  # one of them


class World(NamedTuple):
    log: tuple[int, ...] = ()
    epoch: int = 1
    fences: tuple[tuple[int, int], ...] = ((1, 0),)  # name, last group
    keys: frozenset[int] = frozenset()
    held: frozenset[Command] = frozenset()
    node: Node = Node()
    asked: tuple[int, ...] = ()  # how often each publish came
    forgotten: int = 0  # fences that ran out


class Writer:
    """``fenced``: groups are numbered. ``created``: an append makes a fence where there is none. ``renumbered``: after
    a change of epoch the group gets a new number. ``keyed``: publishes have keys, and come again after a 503.
    """

    def __init__(
        self,
        *,
        fenced: bool = True,
        created: bool = False,
        renumbered: bool = False,
        keyed: bool = False,
        publishes: int = 2,
        epochs: int = 1,
    ) -> None:
        self._fenced = fenced
        self._created = created
        self._renumbered = renumbered
        self._keyed = keyed
        self._publishes = publishes
        self._epochs = epochs

    def initial(self) -> World:
        return World(asked=(0,) * self._publishes)

    def fault(self, world: World) -> str | None:
        return TWICE if len(set(world.log)) < len(world.log) else None

    def is_complete(self, world: World) -> bool | None:
        return None

    def _script(self, world: World, command: Command) -> tuple[World, str]:
        fences = dict(world.fences)
        if command.epoch != world.epoch:
            return world, "epoch"
        if self._fenced:
            if command.fence not in fences and not self._created:
                return world, "unregistered"
            last = fences.get(command.fence, 0)
            if last >= command.group:
                return world, "stored" if last == command.group else "late"
            fences[command.fence] = command.group
        after = world._replace(fences=tuple(sorted(fences.items())))
        if self._keyed and command.publish in world.keys:
            return after, "stored"
        return after._replace(log=(*world.log, command.publish), keys=world.keys | {command.publish}), "stored"

    def steps(self, world: World) -> Iterable[tuple[str, World]]:
        node = world.node
        if node.doing is None:
            yield from self._ask(world, node)
        else:
            yield from self._send(world, node, node.doing)
        for command in sorted(world.held):
            after, answer = self._script(world._replace(held=world.held - {command}), command)
            yield f"held {command} arrives: {answer}", after
        if world.epoch <= self._epochs:
            yield "another node makes a new epoch", world._replace(epoch=world.epoch + 1)
        if not world.forgotten:
            fences = tuple(fence for fence in world.fences if fence[0] != node.fence)
            yield "the fence runs out", world._replace(fences=fences, forgotten=1)

    def _ask(self, world: World, node: Node) -> Iterator[tuple[str, World]]:
        for publish, times in enumerate(world.asked):
            if times < (2 if self._keyed else 1):
                asked = (*world.asked[:publish], times + 1, *world.asked[publish + 1 :])
                doing = node._replace(group=node.group + 1, doing=publish, tries=0, unanswered=False)
                yield f"p{publish} comes: group {doing.group}", world._replace(asked=asked, node=doing)

    def _send(self, world: World, node: Node, publish: int) -> Iterator[tuple[str, World]]:
        if node.tries < 2:
            command = Command(node.fence, node.group, node.epoch, publish)
            sent = world._replace(node=node._replace(tries=node.tries + 1))
            after, answer = self._script(sent, command)
            yield f"{command}: {answer}", self._answered(after, answer)
            unanswered = sent.node._replace(unanswered=True)
            yield f"{command}: {answer}, but the answer is lost", after._replace(node=unanswered)
            yield f"{command} is held", sent._replace(held=world.held | {command}, node=unanswered)
        if node.tries:
            yield "patience is over: 503", world._replace(node=node._replace(doing=None))

    def _answered(self, world: World, answer: str) -> World:
        node = world.node
        if answer == "epoch" and self._renumbered:
            node = node._replace(epoch=world.epoch, group=node.group + 1, tries=0)
        elif answer == "epoch":
            node = node._replace(epoch=world.epoch)
        elif answer == "unregistered":
            fence = node.fence + 1
            again = not node.unanswered  # it is not in the log: the same publish, under the new name
            node = Node(fence, int(again), node.epoch, node.doing if again else None)
            return world._replace(node=node, fences=tuple(sorted((*world.fences, (fence, 0)))))
        else:
            node = node._replace(doing=None)
        return world._replace(node=node)


@pytest.mark.parametrize("rule", [{}, {"keyed": True}, {"publishes": 3}], ids=str)
def test_a_numbered_group_is_stored_once_whatever_is_lost_held_or_forgotten(rule: dict[str, int]) -> None:
    explored = explore(Writer(**rule))  # type: ignore[arg-type]
    assert explored.whole
    assert explored.faults == {}


@pytest.mark.parametrize(
    ("rule", "steps"),
    [
        pytest.param({"fenced": False}, 3, id="groups without numbers"),
        pytest.param({"created": True}, 4, id="a fence that an append makes"),
        pytest.param({"renumbered": True}, 5, id="a new number after a change of epoch"),
    ],
)
def test_plausible_alternatives_store_a_publish_twice(rule: dict[str, bool], steps: int) -> None:
    explored = explore(Writer(**rule))  # type: ignore[arg-type]
    assert len(explored.faults[TWICE]) == steps, explored.faults
