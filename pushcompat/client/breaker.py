"""A circuit breaker: while a server does not answer, callers fail at once instead of waiting one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """After a failure ``allows`` is false for ``seconds``. Then one caller is let through, and if it succeeds, all are
    again. 0 seconds: it never opens.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._closed = True
        self._until = 0.0
        self._lock = threading.Lock()

    def allows(self) -> bool:
        if self._closed:
            return True
        with self._lock:
            now = self._clock()
            if now < self._until:
                return False
            self._until = now + self._seconds  # for the others, while this one tries
            return True

    def succeeded(self) -> None:
        self._closed = True

    def failed(self) -> None:
        if self._seconds > 0:
            with self._lock:
                self._closed = False
                self._until = self._clock() + self._seconds
