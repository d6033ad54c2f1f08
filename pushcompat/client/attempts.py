"""The retry logic of a publish: one budget of time for all attempts. It does no I/O: it is a generator that yields each
attempt, is sent its outcome, and returns the response.

Every attempt carries the same Idempotency-Key, so a publish whose response was lost is not delivered twice. Lost
connections, 408, 425, 426, 429 and 5xx are retried until the time is over, after Retry-After if there is one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator

from .failures import Outcome, Response, may_pass
from .responses import retry_after_s

_PAUSES_S = (0.05, 1.0)  # the shortest, and the longest
# Not the application's generator, which it may have seeded, and which forked processes share the state of.
_uniform = random.SystemRandom().uniform


Attempt = tuple[float, float]  # the pause before it in seconds, and the time at which all waiting ends
Attempts = Generator[Attempt, Outcome, Outcome]


def attempts(timeout_s: float) -> Attempts:
    """Returns the last outcome: a success, a refusal, or what was the matter when the time was over."""
    deadline = time.monotonic() + timeout_s
    pause_s, retry = 0.0, 0
    while True:
        outcome = yield pause_s, deadline
        if not may_pass(outcome):
            return outcome
        pause_s = _pause_s(outcome, retry)
        retry += 1
        if time.monotonic() + pause_s >= deadline:
            return outcome


def _pause_s(outcome: Outcome, retry: int) -> float:
    """Retry-After, and jitter: clients that failed together must not retry together."""
    shortest, longest = _PAUSES_S
    jitter_s = _uniform(shortest, min(longest, 2 * shortest * 2 ** min(retry, 10)))
    asked_s = retry_after_s(outcome.headers.get("retry-after", "")) if isinstance(outcome, Response) else None
    return jitter_s + (asked_s or 0.0)
