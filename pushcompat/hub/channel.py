"""A channel: the window of its messages that is still retained, its floor, and its subscribers.

The rules that keep a cursor honest:

- ``head`` is the highest sequence number that may have been appended to this channel; ``floor`` the highest one that
  was evicted from it. Whoever stands at or above the floor can be given all that it missed; whoever is below it must
  be told ``reset``.
- A message whose ttl ends, or whose key comes again, leaves the window and moves nothing.
- ``visited`` is the place up to which every subscriber that can take bytes has been served. Nothing above it is evicted
  (``may_evict``); so a channel may hold more than its count for as long as a pass is under way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..message import Message

if TYPE_CHECKING:
    from ..wire.encoding import Encoding
    from .connection import Connection


class Chunk(msgspec.Struct, eq=False):
    """Encoded bytes, made once for everyone who needs them, and the cursor at which they leave a reader."""

    encoding: Encoding
    data: bytes
    cursor: int
    count: int  # messages
    partial: bool = False  # there is more than one send may take
    is_reset: bool = False


class Channel:
    __slots__ = (
        "_keyed", "_messages", "_sequences", "alone", "away", "began", "dirty", "floor", "head",
        "memo", "name", "queued", "subscribers", "target", "to_visit", "visited", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, floor: int) -> None:
        self.name = name
        self.alone = (self,)  # what a connection that follows just this channel points to
        self._messages: list[Message] = []
        self._sequences: list[int] = []  # of _messages, for bisection
        self._keyed: dict[str, int] | None = None  # key → sequence number
        self.subscribers: set[Connection] = set()
        self.away: deque[int] | None = None  # when pollers that left between two polls cease to count
        # The pass under way; see fanout.
        self.dirty = False
        self.began = 0.0
        self.to_visit: deque[Connection] | None = None
        self.target = floor
        self.memo: dict[tuple[Encoding, int], Chunk] | None = None
        self.waiting: deque[Callable[[], None]] | None = None  # publishes that wait for the pass
        self.queued = False  # history knows that there are messages
        self.start_over(floor)

    def start_over(self, floor: int) -> None:
        """Forgets all messages; nothing up to ``floor`` can be had any more. A pass under way visits everyone again."""
        self.floor = self.head = self.visited = floor
        self._messages.clear()
        self._sequences.clear()
        self._keyed = None
        self.to_visit = None
        self.queued = False

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def idle(self) -> bool:
        """Nothing but its floor would be lost if the channel were forgotten."""
        return not (self._messages or self.subscribers or self.dirty or self.waiting or self.away)

    def append(self, message: Message) -> Message | None:
        """Adds the message. Returns the earlier one with the same key, which it replaces."""
        earlier = None
        if message.key is not None:
            if self._keyed is None:
                self._keyed = {}
            earlier = self._take(self._keyed.get(message.key, 0))
            self._keyed[message.key] = message.sequence
        self._messages.append(message)
        self._sequences.append(message.sequence)
        self.head = message.sequence
        return earlier

    def after(self, cursor: int) -> Sequence[Message]:
        return self._messages[bisect_right(self._sequences, cursor) :]

    def may_evict(self, sequence: int) -> bool:
        return sequence <= self.visited

    def evict_oldest(self) -> Message:
        """Takes the oldest message away and raises the floor to it."""
        message = self._messages.pop(0)
        del self._sequences[0]
        self.floor = message.sequence
        self._forget_key(message)
        return message

    def drop(self, message: Message) -> bool:
        """Takes a message away whose time is over; the floor stays. False where it is gone already."""
        return self._take(message.sequence) is not None

    def holds(self, message: Message) -> bool:
        at = bisect_left(self._sequences, message.sequence)
        return at < len(self._sequences) and self._sequences[at] == message.sequence

    @property
    def oldest(self) -> Message | None:
        return self._messages[0] if self._messages else None

    def _take(self, sequence: int) -> Message | None:
        at = bisect_left(self._sequences, sequence)
        if at == len(self._sequences) or self._sequences[at] != sequence:
            return None
        del self._sequences[at]
        message = self._messages.pop(at)
        self._forget_key(message)
        return message

    def _forget_key(self, message: Message) -> None:
        if message.key is not None and self._keyed and self._keyed.get(message.key) == message.sequence:
            del self._keyed[message.key]
