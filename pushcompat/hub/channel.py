"""A channel: its retained messages, its floor, and its subscribers.

Invariants:

- ``head`` is the highest sequence number that may have been appended to this channel; ``floor`` the highest one that
  was evicted from it. A subscriber at or above the floor can be sent everything that it missed; one below the floor
  must be sent ``reset``.
- Expiry by ttl and replacement by key remove a message from the window; neither changes ``head`` or ``floor``.
- ``served_up_to`` is the position up to which every subscriber that can take bytes has been served. Nothing above it is
  evicted (``evict_to``), so a channel may hold more messages than its limit during a pass.

Who writes what: the window is written by ``history``, through the methods here; ``subscribers``, ``clients``,
``absent`` and ``beyond`` by ``presence``; the pass by ``fanout``, through ``begin_pass``, ``start_pass_over`` and
``end_pass``; the cache by ``chunks``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..message import Message

Subscriber = Any  # a Connection (whose module imports this one)
Cache = Any  # entries of ``chunks``
_COMPACT_AT = 64  # evicted entries at the front of a window before the lists are compacted


class Channel:
    __slots__ = (
        "_first", "_keyed", "_messages", "_sequences", "absent", "ages", "as_tuple", "beyond", "cache", "clients",
        "dirty", "floor", "head", "max_messages", "name", "pass_head", "pass_started", "queued", "served_up_to",
        "subscribers", "to_visit",
    )  # fmt: skip

    def __init__(self, name: str, floor: int) -> None:
        self.name = name
        self.as_tuple: tuple[Channel, ...] = (self,)  # shared by all connections with only this channel
        self._messages: list[Message | None] = []
        self._sequences: list[int] = []  # of _messages, for bisection
        self._first = 0  # index of the oldest retained message; earlier ones are evicted
        self._keyed: dict[str, int] | None = None  # key → sequence number
        self.subscribers: set[Subscriber] = set()
        self.clients: dict[str, Any] | None = None  # the named ones among them; see presence
        self.absent: list[int] | None = None  # expiry ticks of pollers without a connection, earliest first
        self.beyond = 0  # all subscribers, minus those in ``subscribers``
        self.max_messages = 0  # unless a pass has yet to deliver more
        self.ages: Any = None  # of all channels with the same maximum age (whose module imports this one)
        self.queued = False  # there is an entry for its messages in ``ages``
        # The current pass; see fanout.
        self.dirty = False
        self.pass_started = 0.0
        self.pass_head = floor
        self.to_visit: deque[Subscriber] | None = None  # None: the next visit starts a round
        self.cache: dict[tuple[Any, int], Cache] | None = None
        self.start_over(floor)

    # The window

    def start_over(self, floor: int) -> None:
        """Removes all messages: nothing up to ``floor`` is retained. A current pass starts again."""
        self.floor = self.head = self.served_up_to = floor
        self._messages.clear()
        self._sequences.clear()
        self._first = 0
        self._keyed = None
        self.to_visit = None
        self.queued = False

    def __len__(self) -> int:
        return len(self._messages) - self._first

    @property
    def idle(self) -> bool:
        """Only its floor would be lost if the channel were discarded."""
        return not (len(self) or self.subscribers or self.dirty or self.absent or self.clients)

    def append(self, message: Message) -> Message | None:
        """Adds the message. Returns the earlier one with the same key, which it replaces."""
        sequence = self.head = message.sequence
        self._messages.append(message)
        self._sequences.append(sequence)
        if message.key is None:
            return None
        if self._keyed is None:
            self._keyed = {}
        replaced = self._take(self._keyed.get(message.key, 0))
        self._keyed[message.key] = sequence
        return replaced

    def after(self, cursor: int) -> Sequence[Message]:
        """The retained messages after that sequence number, oldest first."""
        sequences = self._sequences
        if self._first < len(sequences) and (len(sequences) == 1 or sequences[-2] <= cursor < sequences[-1]):
            return self._messages[-1:] if sequences[-1] > cursor else ()  # type: ignore[return-value]  # the usual case
        return self._messages[max(self._first, bisect_right(sequences, cursor)) :]  # type: ignore[return-value]

    def newest(self, count: int) -> Sequence[Message]:
        """At most ``count`` of the retained messages, oldest first."""
        return self._messages[max(self._first, len(self._messages) - count) :]  # type: ignore[return-value]

    def evict_to(self, count: int) -> tuple[int, int]:
        """Evicts the oldest messages until ``count`` are left, except those that a pass has yet to deliver, and raises
        the floor. Returns their number, and the bytes of their payloads.
        """
        messages, first = self._messages, self._first
        last = len(messages) - count
        if last <= first:
            return 0, 0
        sequences, served_up_to, size = self._sequences, self.served_up_to, 0
        while first < last and sequences[first] <= served_up_to:
            message = messages[first]
            assert message is not None
            size += len(message.data)
            if message.key is not None:
                self._forget_key(message)
            messages[first] = None
            first += 1
        evicted = first - self._first
        if evicted:
            self.floor = sequences[first - 1]
            if first > _COMPACT_AT and first * 2 > len(messages):
                del messages[:first]
                del sequences[:first]
                first = 0
            self._first = first
        return evicted, size

    def drop(self, message: Message) -> bool:
        """Removes a message whose ttl has expired; the floor stays. False if it was removed before."""
        return self._take(message.sequence) is not None

    def holds(self, message: Message) -> bool:
        return self._find(message.sequence) is not None

    @property
    def oldest(self) -> Message | None:
        return self._messages[self._first] if len(self._messages) > self._first else None

    def _find(self, sequence: int) -> int | None:
        at = bisect_left(self._sequences, sequence, self._first)
        return at if at < len(self._sequences) and self._sequences[at] == sequence else None

    def _take(self, sequence: int) -> Message | None:
        at = self._find(sequence)
        if at is None:
            return None
        del self._sequences[at]
        message = self._messages.pop(at)
        assert message is not None
        self._forget_key(message)
        return message

    def _forget_key(self, message: Message) -> None:
        if message.key is not None and self._keyed:
            del self._keyed[message.key]

    # The pass

    def skip_pass(self) -> None:
        """For a channel without subscribers."""
        self.served_up_to = self.head

    def begin_pass(self, now: float) -> None:
        self.dirty = True
        self.pass_started = now

    def end_pass(self, now: float) -> None:
        """Every subscriber has been served up to ``pass_head``. The next pass starts if messages arrived in the
        meantime.
        """
        self.to_visit = self.cache = None
        self.served_up_to = self.pass_head
        self.dirty = self.head > self.pass_head
        self.pass_started = now
