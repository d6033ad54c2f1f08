"""When messages exceed their maximum age, for all channels that have the same one.

Ages are not kept by message. Every now and then the head of the log is noted: when such a note is too old, so are all
messages up to that head. And the channels are in a heap by their oldest message, so that only what goes is looked at.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from .channel import Channel

_APART_S = 0.5
_MOST_NOTES = 10_000


class Ages:
    """``age_s``: the maximum age. Times are monotonic, in seconds."""

    __slots__ = ("_apart_s", "_notes", "age_s", "oldest", "too_old")

    def __init__(self, age_s: float) -> None:
        self.age_s = age_s
        self._apart_s = max(_APART_S, age_s / _MOST_NOTES)
        # Heap of (sequence number of the oldest message, channel), one entry for each channel with messages. Entries
        # may be stale; they are corrected when they reach the top. So most messages need no heap operation.
        self.oldest: list[tuple[int, Channel]] = []
        self._notes: deque[tuple[float, int]] = deque()  # (time, head of the log at that time)
        self.too_old = 0  # messages up to this sequence number exceed the maximum age

    def clear(self) -> None:
        self.oldest.clear()
        self._notes.clear()
        self.too_old = 0

    def inherit(self, longer: Ages) -> None:
        """Knows of earlier messages what the other one knows."""
        self._notes = deque(longer._notes)
        self.too_old = longer.too_old

    def note(self, when: float, head: int) -> None:
        """All messages up to ``head`` are from this time or earlier."""
        notes = self._notes
        if not notes or (notes[-1][1] < head and notes[-1][0] + self._apart_s <= when):
            notes.append((when, head))

    def advance(self, now: float) -> None:
        notes = self._notes
        while notes and notes[0][0] <= now - self.age_s:
            self.too_old = notes.popleft()[1]

    def add(self, channel: Channel, sequence: int) -> None:
        """``sequence``: of its oldest message."""
        channel.queued = True
        heapq.heappush(self.oldest, (sequence, channel))

    def refill(self, channels: Iterable[Channel]) -> None:
        """Drops stale entries, of which there may be many."""
        self.oldest = [(message.sequence, channel) for channel in channels if (message := channel.oldest)]
        heapq.heapify(self.oldest)

    def first(self) -> Channel | None:
        """The channel with the oldest message. One that has none is returned once, and forgotten."""
        oldest = self.oldest
        while oldest:
            sequence, channel = oldest[0]
            message = channel.oldest
            if message is None:
                heapq.heappop(oldest)
                channel.queued = False
                return channel
            if message.sequence == sequence:
                return channel
            heapq.heapreplace(oldest, (message.sequence, channel))
        return None
