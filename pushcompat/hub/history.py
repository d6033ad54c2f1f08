"""The retained window of the whole log, by channel: what a resume is served from without waiting for a disk.

Four things take a message away: its channel's count, its age, the byte budget of all channels, its own ttl. None of
them takes one that a pass still owes to somebody (``Channel.may_evict``), except its ttl.

Memory is bounded: a channel with no messages and no subscribers is kept only for its floor, and only so many of those.
What is forgotten about whole channels is folded into one number, the global floor, at which a channel that is made anew
starts. A needless ``reset`` may come of that; a silent hole never.

Times here are of the monotonic clock, so nobody's history depends on what a clock is set to.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ..limits import Retention
from ..message import Message
from ..store.base import Retained, weight
from .channel import Channel

_IDLE_CHANNELS = 10_000  # kept for their floors; about 700 bytes each


class History:
    def __init__(self, retention: Retention, clock: Callable[[], float]) -> None:
        self._retention = retention
        self._clock = clock
        self._channels: dict[str, Channel] = {}
        self._idle: OrderedDict[str, Channel] = OrderedDict()  # of _channels, those kept for their floor alone
        # Heap of (sequence number of the oldest message, channel), once for each channel that has messages. It need not
        # be right: an entry whose message is gone says so when it comes up. So most messages come and go without it.
        self._oldest: list[tuple[int, Channel]] = []
        self._ending: list[tuple[float, int, Message]] = []  # heap of those with a ttl, and some that are gone
        self.floor = 0
        self.head = 0
        self.count = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def channel(self, name: str) -> Channel:
        """The channel of that name, made where there is none."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self.floor)
        elif name in self._idle:
            del self._idle[name]
        return channel

    def find(self, name: str) -> Channel | None:
        return self._channels.get(name)

    def release(self, channel: Channel) -> None:
        """Says that the caller needs the channel no more."""
        if not channel.idle or channel.name in self._idle or self._channels.get(channel.name) is not channel:
            return
        if channel.floor <= self.floor:
            del self._channels[channel.name]  # one made anew would be the same
            return
        self._idle[channel.name] = channel
        if len(self._idle) > _IDLE_CHANNELS:
            name, forgotten = self._idle.popitem(last=False)
            del self._channels[name]
            self.floor = max(self.floor, forgotten.floor)

    def append(self, message: Message, age_s: float = 0.0) -> Channel:
        message.born = self._clock() - age_s
        channel = self._channels.get(message.channel)
        if channel is None or self._idle:
            channel = self.channel(message.channel)
        replaced = channel.append(message)
        self.head = message.sequence
        self._count(message, 1)
        if replaced is not None:
            self._count(replaced, -1)
        if not channel.queued:
            channel.queued = True
            heapq.heappush(self._oldest, (message.sequence, channel))
        if message.ttl_s is not None:
            heapq.heappush(self._ending, (message.born + message.ttl_s, message.sequence, message))
        return channel

    def load(self, retained: Retained, wall_s: float) -> None:
        """Starts (over) from what a store has retained; ``wall_s`` is now, as the messages' times tell it.

        What a store evicts from a channel is older than what it keeps there. So a channel with messages has lost
        nothing since the first of them, whatever went from others.
        """
        messages, floor, head = retained
        self._oldest.clear()
        self._ending.clear()
        self.count = self.bytes = 0
        self.floor = floor
        for channel in self:
            channel.start_over(floor)
        for message in messages:
            channel = self.channel(message.channel)
            if not len(channel):
                channel.start_over(min(floor, message.sequence - 1))
            self.append(message, max(0.0, wall_s - message.time_ms / 1000))
            channel.visited = message.sequence
        self.head = head
        for channel in list(self):
            self.trim(channel)
            self.release(channel)

    def trim(self, channel: Channel) -> None:
        """Evicts what is beyond the channel's count."""
        while len(channel) > self._retention.count and self._evict_oldest(channel):
            pass

    @property
    def crowded(self) -> bool:
        """So much is held for passes that publishing must wait for them."""
        return self.bytes >= 2 * self._retention.bytes

    def full(self, channel: Channel) -> bool:
        """Whether publishing to the channel must wait for its pass."""
        return channel.dirty and (len(channel) >= 2 * self._retention.count or self.crowded)

    def expire(self) -> None:
        """Takes away what is too old, over the byte budget, or past its ttl. To be called about once a second."""
        now = self._clock()
        while self._ending and self._ending[0][0] <= now:
            message = heapq.heappop(self._ending)[2]
            channel = self._channels.get(message.channel)
            if channel is not None and channel.drop(message):
                self._count(message, -1)
                self.release(channel)
        self.shrink(now - self._retention.age_s)

    def shrink(self, born_before: float = float("-inf")) -> None:
        """Evicts the oldest of all, as long as they are born before then or the budget is overdrawn."""
        oldest = self._oldest
        while oldest:
            sequence, channel = oldest[0]
            message = channel.oldest
            if message is None:
                heapq.heappop(oldest)
                channel.queued = False
                self.release(channel)
            elif message.sequence != sequence:
                heapq.heapreplace(oldest, (message.sequence, channel))
            elif message.born >= born_before and self.bytes <= self._retention.bytes:
                break
            elif not self._evict_oldest(channel):
                break  # a pass owes it to somebody
        self._forget_gone()

    def _forget_gone(self) -> None:
        if len(self._oldest) > 2 * len(self._channels) + 1024:
            self._oldest = [(m.sequence, channel) for channel in self if (m := channel.oldest)]
            heapq.heapify(self._oldest)
            for channel in self:
                channel.queued = channel.oldest is not None
        if len(self._ending) > 2 * self.count + 1024:
            self._ending = [ending for ending in self._ending if self._holds(ending[2])]
            heapq.heapify(self._ending)

    def _evict_oldest(self, channel: Channel) -> bool:
        oldest = channel.oldest
        if oldest is None or not channel.may_evict(oldest.sequence):
            return False
        self._count(channel.evict_oldest(), -1)
        return True

    def _holds(self, message: Message) -> bool:
        channel = self._channels.get(message.channel)
        return channel is not None and channel.holds(message)

    def _count(self, message: Message, sign: int) -> None:
        self.count += sign
        self.bytes += sign * weight(message)
