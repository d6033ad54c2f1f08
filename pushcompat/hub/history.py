"""The retained messages of the whole log, by channel, in memory: clients resume without waiting for a disk.

A message is removed for one of four reasons: the number of messages in its channel, its age, the byte budget of all
channels, its ttl. Maximum number and age may differ by channel. Only its ttl removes it before a current pass has
delivered it (``Channel.evict_to``).

Memory is bounded: a channel without messages and subscribers is kept only for its floor, and at most ``MOST_FLOORS``
of them. The floors of discarded channels are merged into the global floor, the initial floor of new channels. This can
cause an unnecessary ``reset``, never an unreported gap.

Times are of the monotonic clock, so changes of the wall clock do not affect history.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import nsmallest
from operator import attrgetter

from ..access.rules import Rules
from ..limits import LONGEST_S, Retention
from ..message import EPOCH_WIDTH, Message, format_cursor
from ..store.base import MESSAGE_OVERHEAD_BYTES, MOST_FLOORS, Retained
from .ages import Ages
from .channel import Channel

UNKNOWN_POSITION = -1  # of a client whose position is unknown: below every floor
# As text: of no log's epoch, so that a client that resumes from it before it got the reset gets it then.
NULL_CURSOR = format_cursor("0" * EPOCH_WIDTH, 0)
_LONGEST_SPREAD_MS = int(LONGEST_S * 1000)


class History:
    def __init__(
        self, retention: Retention, refetch_rate: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.epoch = ""
        self._retention = retention
        self._refetch_rate = refetch_rate
        self._rules = Rules()
        self._budget = retention.bytes
        self._clock = clock
        self._channels: dict[str, Channel] = {}
        self.find: Callable[[str], Channel | None] = self._channels.get
        self._idle: dict[str, Channel] = {}  # the channels kept only for their floor
        self._ages: dict[float, Ages] = {}  # by maximum age: one, unless channels have rules
        self._ending: list[tuple[float, int, Message]] = []  # heap of messages with a ttl; may contain removed ones
        self._formatted = 0, "", ""  # the cursor formatted last: sequence number, epoch, text
        self.others: Mapping[str, int] = {}  # subscribers in other processes, by channel
        self.floor = 0
        self.head = 0
        self.count = 0
        self.bytes = 0
        self.follow_rules(self._rules)

    # Channels

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def names(self) -> Iterable[str]:
        return self._channels.keys()

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def channel(self, name: str) -> Channel:
        """The channel of that name, created if necessary."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._new(name, self.floor)
        elif name in self._idle:
            del self._idle[name]
        return channel

    def _new(self, name: str, floor: int) -> Channel:
        channel = self._channels[name] = Channel(name, floor)
        self._apply_rule(channel)
        return channel

    def _apply_rule(self, channel: Channel) -> None:
        channel.max_messages, age_s = self._retention.of(channel.name)
        ages = self._ages.get(age_s)
        if ages is None:
            ages = self._ages[age_s] = Ages(age_s)
        channel.ages = ages

    def _change_history(self) -> None:
        """Channels may have other maximum numbers and ages than before."""
        before, self._ages = self._ages, {}
        for channel in self:
            self._apply_rule(channel)
        for ages in self._ages.values():
            if before:
                ages.inherit(before[max(before)])
        self._refill()
        for channel in list(self):
            self.trim(channel)

    def discard_if_idle(self, channel: Channel) -> None:
        """Releases the channel: it is kept only if it is not idle, or for its floor."""
        if not channel.idle or channel.name in self._idle or self._channels.get(channel.name) is not channel:
            return
        if channel.floor <= self.floor:
            self._forget(channel)  # a new one would be the same
            return
        self._idle[channel.name] = channel
        if len(self._idle) > MOST_FLOORS:
            self._fold()

    def _fold(self) -> None:
        """Discards the idle channels with the lowest floors; more than necessary, so that it happens rarely."""
        lowest = nsmallest(
            len(self._idle) - MOST_FLOORS + MOST_FLOORS // 8, self._idle.values(), key=attrgetter("floor")
        )
        for channel in lowest:
            del self._idle[channel.name]
            self._forget(channel)
        self.floor = max(self.floor, lowest[-1].floor)

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.name]
        channel.as_tuple = ()  # breaks a reference cycle

    def subscribers_everywhere(self, name: str, channel: Channel | None) -> int:
        """The subscribers of the channel of that name, in all processes that share the log."""
        count = 0 if channel is None else len(channel.subscribers) + channel.beyond
        return count + self.others.get(name, 0) if self.others else count

    def subscribers(self, channel: Channel | None) -> int:
        """The channel's subscribers in this process, including pollers between two polls."""
        return 0 if channel is None else len(channel.subscribers) + channel.beyond

    def spread_ms(self, names: Iterable[str]) -> int | None:
        """The time over which these channels' subscribers should spread their refetches; None: no need to."""
        if not self.spreads:
            return None
        counts: dict[float, int] = {}  # subscribers by refetch rate
        for name in names:
            rate = self._rules.of(name).refetch_rate or self._refetch_rate
            if rate is not None and rate != math.inf:
                counts[rate] = counts.get(rate, 0) + self.subscribers_everywhere(name, self.find(name))
        if not counts:
            return None
        spread_s = sum([count / rate for rate, count in counts.items()])
        return min(math.ceil(spread_s * 1000), _LONGEST_SPREAD_MS)

    def follow_rules(self, rules: Rules) -> None:
        """The rules by channel are these from now on. What they say about history is known to the retention."""
        before, self._rules = self._rules, rules
        if rules.rules != before.rules:
            self._change_history()
        self.spreads = self._refetch_rate is not None or rules.set_spreads  # some messages have a spread

    # Cursors

    def cursor(self, sequence: int) -> str:
        """The cursor of that position, as text."""
        known, epoch, text = self._formatted
        if sequence != known or epoch is not self.epoch:
            text = NULL_CURSOR if sequence == UNKNOWN_POSITION else format_cursor(self.epoch, sequence)
            self._formatted = sequence, self.epoch, text
        return text

    def position(self, cursor: int, channels: Iterable[Channel]) -> int:
        """A subscriber's position after everything sent: before the first message that it has yet to get; the head of
        the log if there is none. So it is never lower than an earlier one, which may have been the head.
        """
        position = self.head
        for channel in channels:
            if channel.head > cursor:
                if channel.floor > cursor:
                    return cursor  # a reset is due
                pending = channel.after(cursor)
                if pending:
                    position = min(position, pending[0].sequence - 1)
        return max(cursor, position)

    # Messages

    def append(self, message: Message) -> Channel:
        channel = self._channels.get(message.channel)
        if channel is None or self._idle:
            channel = self.channel(message.channel)
        replaced = channel.append(message)
        self.head = message.sequence
        self.count += 1
        self.bytes += len(message.data) + MESSAGE_OVERHEAD_BYTES
        if replaced is not None:
            self._uncount(replaced)
        if not channel.queued:
            channel.ages.add(channel, message.sequence)
            self._forget_gone()
        if message.ttl_s is not None:
            self._end_in(message, message.ttl_s)
        return channel

    def skip(self, message: Message) -> None:
        """The message is in the log, and not for subscribers."""
        self.head = message.sequence

    def load(self, retained: Retained, wall_s: float) -> None:
        """Loads or reloads the retained messages of a store; ``wall_s``: the current wall-clock time.

        A store evicts older messages of a channel before newer ones. So a channel with messages has lost none since the
        first of them, whatever floors were merged into the global floor.
        """
        messages, floor, head, self.epoch, floors = retained
        self._ending.clear()
        for ages in self._ages.values():
            ages.clear()
        self.count = self.bytes = 0
        self.floor = floor
        for channel in self:
            channel.start_over(max(floor, floors.get(channel.name, 0)))
        for name in floors.keys() - self._channels.keys():
            self._new(name, max(floor, floors[name]))
        now = self._clock()
        for message in messages:
            channel = self.channel(message.channel)
            if not len(channel):
                channel.start_over(max(floors.get(message.channel, 0), min(floor, message.sequence - 1)))
            self.append(message)
            channel.served_up_to = message.sequence
            age_s = max(0.0, wall_s - message.time_ms / 1000)
            channel.ages.note(now - age_s, self.head)
            if message.ttl_s is not None:
                self._end_in(message, message.ttl_s - age_s)
        self.head = head
        for ages in self._ages.values():
            ages.note(now, head)
        for channel in list(self):
            self.trim(channel)
            self.discard_if_idle(channel)

    def trim(self, channel: Channel) -> None:
        """Evicts the channel's messages beyond the maximum number."""
        evicted, size = channel.evict_to(channel.max_messages)
        if evicted:
            self.count -= evicted
            self.bytes -= size + evicted * MESSAGE_OVERHEAD_BYTES

    @property
    def over_budget(self) -> bool:
        """Messages held for passes use twice the byte budget: publishes must wait."""
        return self.bytes >= 2 * self._budget

    def needs_backpressure(self, channel: Channel) -> bool:
        """Whether publishing to the channel must wait for its pass."""
        return channel.dirty and (len(channel) >= 2 * channel.max_messages or self.over_budget)

    def expire(self) -> None:
        """Removes messages beyond the maximum age, the byte budget or their ttl. Call it about once a second."""
        now = self._clock()
        while self._ending and self._ending[0][0] <= now:
            message = heapq.heappop(self._ending)[2]
            channel = self._channels.get(message.channel)
            if channel is not None and channel.drop(message):
                self._uncount(message)
                self.discard_if_idle(channel)
        for ages in self._ages.values():
            ages.advance(now)
            ages.note(now, self.head)
            while self._evict_too_old(ages):
                pass
        self.shrink()
        self._forget_gone()

    def _evict_too_old(self, ages: Ages) -> bool:
        """Whether there may be more."""
        channel = ages.first()
        if channel is None:
            return False
        message = channel.oldest
        if message is None:
            self.discard_if_idle(channel)
            return True
        return message.sequence <= ages.too_old and self._evict_oldest(channel) > 0

    def shrink(self) -> None:
        """Evicts the oldest messages of all channels while the byte budget is exceeded."""
        while self.bytes > self._budget and self._evict_first():
            pass

    def _evict_first(self) -> bool:
        """Evicts the oldest message of all. False if there is none, or a pass has yet to deliver it."""
        first: Channel | None = None
        sequence = self.head + 1
        for ages in self._ages.values():
            channel = ages.first()
            if channel is None:
                continue
            message = channel.oldest
            if message is None:
                self.discard_if_idle(channel)
                return True
            if message.sequence < sequence:
                first, sequence = channel, message.sequence
        return first is not None and self._evict_oldest(first) > 0

    def _end_in(self, message: Message, seconds: float) -> None:
        heapq.heappush(self._ending, (self._clock() + seconds, message.sequence, message))
        self._forget_gone()

    def _forget_gone(self) -> None:
        most = 2 * len(self._channels) + 1024
        for ages in self._ages.values():
            if len(ages.oldest) > most:
                self._refill()
        if len(self._ending) > 2 * self.count + 1024:
            self._ending = [ending for ending in self._ending if self._holds(ending[2])]
            heapq.heapify(self._ending)

    def _refill(self) -> None:
        """Drops the stale entries of all heaps."""
        of_age: dict[float, list[Channel]] = {age_s: [] for age_s in self._ages}
        for channel in self:
            channel.queued = channel.oldest is not None
            of_age[channel.ages.age_s].append(channel)
        for age_s, channels in of_age.items():
            self._ages[age_s].refill(channels)

    def _evict_oldest(self, channel: Channel) -> int:
        evicted, size = channel.evict_to(len(channel) - 1)
        self.count -= evicted
        self.bytes -= size + evicted * MESSAGE_OVERHEAD_BYTES
        return evicted

    def _holds(self, message: Message) -> bool:
        channel = self._channels.get(message.channel)
        return channel is not None and channel.holds(message)

    def _uncount(self, message: Message) -> None:
        self.count -= 1
        self.bytes -= len(message.data) + MESSAGE_OVERHEAD_BYTES
