"""A memory store that can lose what stores of several processes can lose, in all the ways they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from pushcompat.message import Message, new_epoch
from pushcompat.store.base import Lost, Publish, Receipt, Retained, retain
from pushcompat.store.memory import MemoryStore


class ForgetfulStore(MemoryStore):
    _losses = 0
    _told = 0  # of which losses it was when somebody last asked what is retained

    async def retained(self) -> Retained:
        self._told = self._losses
        return await super().retained()

    async def publish(self, *drafts: Message) -> int:
        """Appends one publish; returns the last one's sequence number."""
        (receipt,) = await self.append([Publish(drafts)])
        assert isinstance(receipt, Receipt)
        return receipt.sequence

    async def follow(self, after: int) -> AsyncIterator[Sequence[Message]]:
        while True:
            if self._told != self._losses or after < self._floor:
                raise Lost
            news = self._news
            batch = [message for message in self._log if message.sequence > after]
            if batch:
                yield batch
                after = batch[-1].sequence
            else:
                await news.wait()

    def kept(self) -> tuple[list[Message], int]:
        """What is retained, for the test to know."""
        return retain(self._log, self._retention, int(self._clock() * 1000), self._floor)

    @property
    def is_told(self) -> bool:
        """Whether somebody has asked what is retained since something was lost."""
        return self._told == self._losses

    @property
    def head(self) -> int:
        return self._head

    def grow_older(self, seconds: float) -> None:
        for message in self._log:
            message.time_ms -= int(seconds * 1000)

    def trim_unseen(self, count: int) -> None:
        """Another process appends so much that it is trimmed before anybody else reads it."""
        self._head += count
        self._floor = self._head
        self._log.clear()
        self._ring()

    def fail_over(self, count: int) -> None:
        """The last messages are gone, and others will come under their numbers. The epoch tells."""
        self._log, self._floor = self.kept()
        del self._log[max(0, len(self._log) - count) :]
        self._head = max(self._floor, *(message.sequence for message in self._log), 0)
        self.epoch = new_epoch()
        self._ring()

    def stumble(self) -> None:
        """Nothing is gone, but followers have lost their place."""
        self._ring()

    def _ring(self) -> None:
        self._losses += 1
        news, self._news = self._news, asyncio.Event()
        news.set()
