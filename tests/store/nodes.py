"""Nodes that share a log, and what must hold of all that they see: each as a server would use its store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from pushcompat.errors import RequestError
from pushcompat.message import Message
from pushcompat.store.base import Idempotency, Lost, Outcome, Publish, Receipt, Retained, Store, StoreError

from .contract import append_group, draft
from .engines import until


class Log:
    """What all nodes and publishers saw, by epoch and number."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], str] = {}
        self.acknowledged: dict[str, Receipt] = {}

    def note(self, epoch: str, sequence: int, data: str) -> None:
        before = self.seen.setdefault((epoch, sequence), data)
        assert before == data, f"{epoch}-{sequence} is {before} and {data}"

    def lost(self, retained: Retained) -> list[str]:
        """What was acknowledged under this epoch, and is not there."""
        there = {message.data.decode() for message in retained.messages}
        return [
            data for data, receipt in self.acknowledged.items() if receipt.epoch == retained.epoch and data not in there
        ]


class Node:
    """A store, and a follower that loads anew where it is told to."""

    def __init__(self, store: Store, log: Log, name: str = "a") -> None:
        self.store = store
        self.name = name
        self.log = log
        self.epoch = ""
        self.head = 0
        self.loads = 0
        self.data: list[str] = []  # what it would have delivered since the last load with another epoch
        self._numbers = count()

    async def run(self) -> None:
        lost = True
        while True:
            try:
                if lost:
                    self._load(await self.store.retained())
                    lost = False
                await self.store.follow(self.head, self.epoch, self._news)
            except Lost:
                lost = True
            except StoreError:
                await asyncio.sleep(0.02)

    def _load(self, retained: Retained) -> None:
        self.loads += 1
        known = self.head if retained.epoch == self.epoch else 0
        if retained.epoch != self.epoch:
            self.data.clear()
        self.epoch, self.head = retained.epoch, retained.head
        for message in retained.messages:
            self.log.note(self.epoch, message.sequence, message.data.decode())
            if message.sequence > known:
                self.data.append(message.data.decode())

    def _news(self, messages: Sequence[Message]) -> None:
        for message in messages:
            assert message.sequence == self.head + 1, (message.sequence, self.head)
            self.head = message.sequence
            self.log.note(self.epoch, message.sequence, message.data.decode())
            self.data.append(message.data.decode())

    async def publish(self, data: str | None = None, key: str | None = None) -> Outcome:
        """One publish, with a key; what is acknowledged is noted."""
        data = data or f"{self.name}{next(self._numbers)}"
        idempotency = Idempotency("me", key or data, data.encode())
        (outcome,) = await append_group(self.store, [Publish([draft("c", data)], {}, idempotency)])
        if isinstance(outcome, Receipt):
            self.log.acknowledged[data] = outcome
        else:
            assert isinstance(outcome, RequestError)
        return outcome

    async def seen(self, *data: str) -> None:
        await until(lambda: set(data) <= set(self.data), f"{self.name} sees {data}")


@asynccontextmanager
async def following(*nodes: Node) -> AsyncIterator[None]:
    """Opens the nodes, and has them follow."""
    tasks: list[asyncio.Task[None]] = []
    try:
        for node in nodes:
            await node.store.open()
            tasks.append(asyncio.create_task(node.run()))
        for node in nodes:
            await until(lambda node=node: node.epoch, f"{node.name} has loaded")  # type: ignore[misc]
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in nodes:
            await node.store.close()
