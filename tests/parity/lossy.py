"""A memory store that can lose what stores of several processes can lose, in all the ways they do."""

from __future__ import annotations

import asyncio

from pushcompat.limits import Retention
from pushcompat.message import Message, new_epoch
from pushcompat.store.base import Kept, Lost, News, Outcome, Publish, Receipt, Retained, retain
from pushcompat.store.memory import MemoryStore


class LossyStore(MemoryStore):
    def __init__(self, retention: Retention) -> None:
        super().__init__(retention)
        self._losses = 0
        self._losses_at_last_load = 0
        self._lost = asyncio.Event()

    async def retained(self) -> Retained:
        self._losses_at_last_load = self._losses
        return await super().retained()

    async def publish(self, *drafts: Message) -> int:
        """Appends one publish; returns the last one's sequence number."""
        outcomes: list[Outcome] = []
        self.append([Publish(drafts)], outcomes.extend)
        (receipt,) = outcomes
        assert isinstance(receipt, Receipt)
        return receipt.sequence

    async def follow(self, after: int, epoch: str, news: News) -> None:
        if not self.is_told:
            raise Lost
        lost = self._lost
        following = asyncio.ensure_future(super().follow(after, epoch, news))
        losing = asyncio.ensure_future(lost.wait())
        try:
            await asyncio.wait([following, losing], return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            raise Lost
        finally:
            following.cancel()
            losing.cancel()

    def kept(self) -> Kept:
        """What is retained, for the test to know."""
        return retain(self._log, self._retention, int(self._clock() * 1000), self._floor, self._floors)

    @property
    def is_told(self) -> bool:
        """Whether somebody has asked what is retained since something was lost."""
        return self._losses_at_last_load == self._losses

    @property
    def last(self) -> int:
        """The sequence number of the last message."""
        return self._head

    def grow_older(self, seconds: float) -> None:
        for message in self._log:
            message.time_ms -= int(seconds * 1000)

    def trim_before_read(self, count: int) -> None:
        """Another process appends so much that it is trimmed before anybody else reads it."""
        self._head += count
        self._floor = self._evicted = self._head
        self._log.clear()
        self._ring()

    def fail_over(self, count: int) -> None:
        """The last messages are gone, and others will come under their numbers. The epoch tells."""
        self._log, self._floor, self._floors, _ = self.kept()
        del self._log[max(0, len(self._log) - count) :]
        self._head = max(self._floor, *self._floors.values(), *(message.sequence for message in self._log), 0)
        self.epoch = new_epoch()
        self._ring()

    def lose_position(self) -> None:
        """Nothing is gone, but followers have to load the log again."""
        self._ring()

    def _ring(self) -> None:
        self._losses += 1
        self._followers.clear()  # at once: they must not get what comes after a gap
        self._lost.set()
        self._lost = asyncio.Event()
