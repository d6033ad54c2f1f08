"""How often something may be done: a rate, and how much may be done at once.

This is the token bucket as GCRA (ITU-T I.371): instead of a number of tokens, which would have to be refilled, one
number is kept, the time at which the bucket will be full again.
"""

from __future__ import annotations

BURST_S = 10.0  # what a publisher has not used within this time it may publish at once


class Quota:
    """``rate``: how many a second, on average. ``burst_s``: for how many seconds what was not used is saved up."""

    __slots__ = ("_burst_s", "_full_at", "_interval_s")

    def __init__(self, rate: float, burst_s: float = BURST_S) -> None:
        self._interval_s = 1.0 / rate
        self._burst_s = burst_s
        self._full_at = 0.0

    def take(self, count: int, now: float) -> float:
        """Takes ``count`` at ``now``, in seconds of a monotonic clock, and returns 0. If the quota is used up, takes
        nothing, and returns the seconds until it is not.

        ``count`` may exceed what is left: the next one then waits for longer. So a large batch is never impossible.
        """
        full_at = max(self._full_at, now)
        wait_s = full_at - now - self._burst_s
        if wait_s > 0:
            return wait_s
        self._full_at = full_at + count * self._interval_s
        return 0.0

    def is_full(self, now: float) -> bool:
        """Whether nothing of it is used: a new one would be the same."""
        return self._full_at <= now


class Quotas:
    """One quota for each publisher, by its name: all its grants and connections share it."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._quotas: dict[str, tuple[float, Quota]] = {}  # with their rates

    def configure(self, rate: float | None) -> None:
        """``rate``: of publishers that have none of their own; None: unlimited."""
        self._rate = rate

    def of(self, name: str, own_rate: float | None = None) -> Quota | None:
        """None: the publisher has no limit. A quota that is used up stays so, unless its rate has changed."""
        rate = self._rate if own_rate is None else own_rate
        if rate is None:
            return None
        known = self._quotas.get(name)
        if known is None or known[0] != rate:
            known = self._quotas[name] = rate, Quota(rate)
        return known[1]

    def forget(self, name: str) -> None:
        self._quotas.pop(name, None)
