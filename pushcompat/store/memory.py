"""The log in memory: history is lost at a restart. For tests, and for applications that refetch anyway.

Messages are in one list. They are the same objects as in the hub's history, so only messages beyond a channel's maximum
number need additional memory. They are evicted when they are half of the list, and the byte budget may be exceeded by
an eighth: so the cost per message is small, and no turn of the loop is long. The access log is kept apart.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter

from ..errors import RequestError
from ..limits import Retention
from ..message import ACCESS_LOG, Message, new_epoch
from .base import (
    MESSAGE_OVERHEAD_BYTES,
    MOST_FLOORS,
    Done,
    Health,
    Lost,
    News,
    Outcome,
    Publish,
    Receipt,
    Retained,
    fold,
    retain,
    weight,
)
from .items import NewDrafts, item_receipts, new_drafts
from .receipts import Receipts

_TRIM_AT_LEAST = 4096
_SWEEP_AT_LEAST = 1024  # entries of the access log
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
        self._steady = steady  # monotonic: idempotency must not depend on changes of the wall clock
        self._log: list[Message] = []
        self._bytes = 0
        self._head = 0
        self._floor = 0
        self._floors: dict[str, int] = {}
        self._evicted = 0
        self._counts: dict[str, int] = {}  # number of messages in the list, by channel
        self._beyond = 0  # number of messages beyond their channel's maximum
        self._access: dict[str | None, Message] = {}  # the access log, by key, in its order
        self._sweep_at = _SWEEP_AT_LEAST
        self._trim_at_bytes = retention.bytes + retention.bytes // 8
        self._followers: list[News] = []
        self._receipts = Receipts(retention)

    async def open(self) -> None:
        """Nothing to do."""

    def append(self, group: Sequence[Publish], done: Done) -> None:
        time_ms = int(self._clock() * 1000)
        appended: list[Message] = []
        now = self._steady()
        outcomes = [self._append(publish, time_ms, now, appended) for publish in group]
        self._log += appended
        counts, access = self._counts, False
        limit = self._retention.count if self._retention.uniform else 0  # 0: by channel
        for message in appended:
            channel = message.channel
            if channel == ACCESS_LOG:
                access = True
                continue
            self._bytes += len(message.data) + MESSAGE_OVERHEAD_BYTES
            count = counts[channel] = counts.get(channel, 0) + 1
            if count > (limit or self._retention.of(channel)[0]):
                self._beyond += 1
        if access:
            self._move_access_log(appended)
        if self._bytes > self._trim_at_bytes or self._beyond * 2 > len(self._log) + _TRIM_AT_LEAST:
            self._trim()
        for news in self._followers:
            news(appended)
        done(outcomes)

    async def retained(self) -> Retained:
        now_ms = int(self._clock() * 1000)
        kept = retain([*self._log, *self._access.values()], self._retention, now_ms, self._floor, self._floors)
        return Retained(kept.messages, kept.floor, self._head, self.epoch, kept.floors)

    async def head(self) -> tuple[str, int]:
        return self.epoch, self._head

    async def follow(self, after: int, epoch: str, news: News) -> None:
        if after < self._evicted or epoch != self.epoch:
            raise Lost
        missed = self._log[bisect_right(self._log, after, key=_sequence) :]
        missed += [message for message in self._access.values() if message.sequence > after]
        if missed:
            missed.sort(key=_sequence)
            news(missed)
        self._followers.append(news)
        try:
            await asyncio.Event().wait()  # a log in memory is never lost
        finally:
            if news in self._followers:
                self._followers.remove(news)

    def health(self) -> Health:
        return Health(None, len(self._receipts), self._receipts.window_s)

    async def close(self) -> None:
        self._log.clear()

    def _append(self, publish: Publish, time_ms: int, now: float, appended: list[Message]) -> Outcome:
        idempotency = publish.idempotency
        if idempotency is not None:
            earlier = self._receipts.find(idempotency, now)
            if earlier is not None:
                return earlier
        drafts: Sequence[Message] = publish.drafts
        new: NewDrafts | None = None
        if publish.ids is not None:
            found = new_drafts(publish, lambda item: self._receipts.find(item, now))
            if isinstance(found, RequestError):
                return found
            new, drafts = found, found.drafts
        for draft in drafts:
            self._head = draft.sequence = self._head + 1
            draft.time_ms = time_ms
            appended.append(draft)
        if new is None:
            receipt = Receipt(self.epoch, self._head, publish.subscribers)
        else:
            receipt = new.receipt(publish, self.epoch, self._head)
            for item in item_receipts(publish, self.epoch):
                self._receipts.keep(*item, now)
        if idempotency is not None:
            self._receipts.keep(idempotency, receipt, now)
        return receipt

    def _move_access_log(self, appended: Sequence[Message]) -> None:
        """Removes its messages from the end of the list. Only their keys and ttl end them."""
        del self._log[len(self._log) - len(appended) :]
        for message in appended:
            if message.channel != ACCESS_LOG:
                self._log.append(message)
                continue
            self._access.pop(message.key, None)
            self._access[message.key] = message
        if len(self._access) >= self._sweep_at:
            now_ms = int(self._clock() * 1000)
            self._access = {
                message.key: message for message in retain(self._access.values(), self._retention, now_ms)[0]
            }
            self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._access))

    def _trim(self) -> None:
        if self._beyond * 8 > len(self._log):
            self._evict_beyond_counts()
        evicted = 0
        while self._bytes > self._retention.bytes:
            message = self._log[evicted]
            self._note_evicted(message)
            self._bytes -= weight(message)
            self._counts[message.channel] -= 1
            evicted += 1
            if not self._counts[message.channel]:
                del self._counts[message.channel]
            elif self._counts[message.channel] >= self._retention.of(message.channel)[0]:
                self._beyond -= 1
        del self._log[:evicted]

    def _evict_beyond_counts(self) -> None:
        """The part of ``retain`` that bounds this list; ``retained`` applies the other rules."""
        kept: list[Message] = []
        counts: dict[str, int] = {}
        seen: set[tuple[str, str]] = set()
        limit = self._retention.count if self._retention.uniform else 0  # 0: by channel
        for message in reversed(self._log):
            if message.key is not None:
                key = message.channel, message.key
                if key in seen:
                    self._bytes -= weight(message)
                    continue  # replaced: no loss
                seen.add(key)
            count = counts.get(message.channel, 0)
            if count < (limit or self._retention.of(message.channel)[0]):
                counts[message.channel] = count + 1
                kept.append(message)
            else:
                self._bytes -= weight(message)
                self._note_evicted(message)
        kept.reverse()
        self._log, self._counts, self._beyond = kept, counts, 0

    def _note_evicted(self, message: Message) -> None:
        channel, sequence = message.channel, message.sequence
        if sequence > self._evicted:
            self._evicted = sequence
        if sequence > self._floors.get(channel, 0):
            self._floors[channel] = sequence
        if len(self._floors) > 2 * MOST_FLOORS:
            self._floor, self._floors = fold(self._floors, self._floor)
