"""The log in the process: gone when the process is. For tests, and for who can afford to lose history at a restart.

Messages stay in one list. It is trimmed when it has grown to twice what was kept the last time, so trimming costs
nothing per message; what a follower has yet to read is left alone.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from operator import attrgetter

import msgspec

from ..errors import KeyReused
from ..limits import Retention
from ..message import Message, new_epoch
from .base import Idempotency, Lost, Publish, Receipt, Retained, retain

_TRIM_AT_LEAST = 4096
_sequence = attrgetter("sequence")


class MemoryStore:
    def __init__(
        self,
        retention: Retention,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = new_epoch()
        self._retention = retention
        self._clock = clock
        self._steady = steady  # idempotency must not depend on a clock that somebody sets
        self._log: list[Message] = []
        self._head = 0
        self._floor = 0
        self._trim_at = _TRIM_AT_LEAST
        self._news = asyncio.Event()
        self._followers: dict[object, int] = {}  # how far each has read
        self._receipts: OrderedDict[tuple[str, str], tuple[bytes, float, Receipt]] = OrderedDict()

    async def append(self, publishes: Sequence[Publish]) -> list[Receipt | KeyReused]:
        now = self._clock()
        steady = self._steady()
        outcomes = [self._append(publish, now, steady) for publish in publishes]
        if len(self._log) >= self._trim_at:
            self._trim(now)
        news, self._news = self._news, asyncio.Event()
        news.set()
        return outcomes

    async def retained(self) -> Retained:
        kept, floor = retain(self._log, self._retention, int(self._clock() * 1000), self._floor)
        return Retained(kept, floor, self._head)

    async def follow(self, after: int) -> AsyncIterator[Sequence[Message]]:
        me = object()
        self._followers[me] = after
        try:
            while True:
                if after < self._floor:
                    raise Lost
                news = self._news
                batch = self._log[bisect_right(self._log, after, key=_sequence) :]
                if batch:
                    yield batch
                    self._followers[me] = after = batch[-1].sequence
                else:
                    await news.wait()
        finally:
            del self._followers[me]

    async def close(self) -> None:
        self._log.clear()

    def _append(self, publish: Publish, now: float, steady: float) -> Receipt | KeyReused:
        if publish.idempotency is not None:
            earlier = self._answered(publish.idempotency, steady)
            if earlier is not None:
                return earlier
        time_ms = int(now * 1000)
        for draft in publish.drafts:
            self._head += 1
            draft.sequence = self._head
            draft.time_ms = time_ms
        self._log.extend(publish.drafts)
        receipt = Receipt(self.epoch, self._head, publish.subscribers)
        if publish.idempotency is not None:
            again = publish.idempotency
            until = steady + self._retention.idempotency_s
            self._receipts[again.publisher, again.key] = (again.digest, until, receipt)
        return receipt

    def _answered(self, again: Idempotency, steady: float) -> Receipt | KeyReused | None:
        while self._receipts and next(iter(self._receipts.values()))[1] <= steady:
            self._receipts.popitem(last=False)
        digest, _, receipt = self._receipts.get((again.publisher, again.key), (b"", 0, None))
        if receipt is None:
            return None
        if digest == again.digest:
            return msgspec.structs.replace(receipt, repeated=True)
        return KeyReused("this Idempotency-Key came before with another body; use a new key for each publish")

    def _trim(self, now: float) -> None:
        unread = bisect_right(self._log, min(self._followers.values(), default=self._head), key=_sequence)
        kept, self._floor = retain(self._log[:unread], self._retention, int(now * 1000), self._floor)
        self._log[:unread] = kept
        self._trim_at = 2 * len(self._log) + _TRIM_AT_LEAST
