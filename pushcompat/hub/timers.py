"""All deadlines of the hub, on one timer wheel of one-second buckets.

Most timers are postponed before they expire: every delivery postpones the next heartbeat. So postponing is only an
assignment; the old bucket re-inserts the timer when it is processed. Only moving a timer earlier inserts it into
another bucket, and the old entry becomes stale.

No entry is more than ``_MAX_TICKS_AHEAD`` ahead: a closed connection is freed when its bucket is processed, and there
may be a thousand of these a second whose next deadline was ten minutes away.

Ticks are whole seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

NEVER = 1 << 60
_MAX_TICKS_AHEAD = 30


class Timed(Protocol):
    deadline: int  # the tick at which the timer expires, or NEVER
    bucket: int  # the bucket of its entry; written by the wheel only


T = TypeVar("T", bound=Timed)


class TimerWheel(Generic[T]):
    def __init__(self, now: int) -> None:
        self.now = now
        self._buckets: dict[int, list[T]] = {}

    def set(self, timed: T, deadline: int) -> None:
        timed.deadline = deadline
        if deadline < timed.bucket:
            self._put(timed, deadline)

    def cancel(self, timed: T) -> None:
        timed.deadline = NEVER

    def advance(self, now: int) -> Iterator[T]:
        """Advances to ``now`` and yields the expired timers. The caller sets the next deadline of each, if any."""
        while self.now < now:
            self.now += 1
            for timed in self._buckets.pop(self.now, ()):
                if timed.bucket != self.now:
                    continue  # stale: it was moved to an earlier bucket
                timed.bucket = NEVER
                if timed.deadline <= self.now:
                    timed.deadline = NEVER
                    yield timed
                elif timed.deadline < NEVER:
                    self._put(timed, timed.deadline)

    def _put(self, timed: T, deadline: int) -> None:
        tick = min(max(deadline, self.now + 1), self.now + _MAX_TICKS_AHEAD)
        timed.bucket = tick
        self._buckets.setdefault(tick, []).append(timed)
