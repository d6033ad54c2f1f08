"""All deadlines of the hub, on one timer wheel of one-second buckets.

Most deadlines move before they are due: every delivery puts the next heartbeat off. So moving one later is an
assignment; the bucket that it was in passes it on when it comes up. Only moving one earlier takes a place in another
bucket, and the old place is recognised as stale by then.

Nobody is put further ahead than ``_MAX_TICKS_AHEAD``: a connection that is closed is forgotten when its bucket comes
up, and there may be a thousand of these a second whose next deadline was ten minutes away.

Ticks are whole seconds of a clock that only goes forward; nothing here knows the time of day.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

NEVER = 1 << 60
_MAX_TICKS_AHEAD = 30


class Timed(Protocol):
    deadline: int  # the tick at which something is to happen; NEVER
    bucket: int  # the bucket it waits in; the wheel's own


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
        """Goes on to ``now`` and yields what is due. The caller sets the next deadline of each, if it has one."""
        while self.now < now:
            self.now += 1
            for timed in self._buckets.pop(self.now, ()):
                if timed.bucket != self.now:
                    continue  # it moved to an earlier bucket and left this place behind
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
