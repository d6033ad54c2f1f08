"""Kept connections to one server. Thread-safe, and safe over fork: a child opens its own. Standard library only.

A connection is dropped when it was idle for ``IDLE_S``: NATs and load balancers forget it at about a minute. Before it
is used it is checked: one that can be read has ended, since nobody asked for anything. It may still end in the same
moment; then the request is repeated at once on a new connection (``Stale``), which its Idempotency-Key makes safe.
"""

from __future__ import annotations

import os
import select
from collections import deque
from time import monotonic as _now
from typing import NamedTuple

from .dial import BoundedSocket, Endpoint, Remaining, dial

IDLE_S = 55.0
MOST_KEPT = 8


class _Kept(NamedTuple):
    sock: BoundedSocket
    since: float


class Pool:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._kept: deque[_Kept] = deque()  # the last used one at the end; its methods are atomic
        self._pid = os.getpid()

    def take(self, remaining_s: Remaining) -> tuple[BoundedSocket, bool]:
        """A connection, and whether it was kept. Raises OSError."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self.close()  # the parent's: closed here, they stay open there
        while self._kept:
            try:
                sock, since = self._kept.pop()
            except IndexError:
                break  # another thread was faster
            if _now() - since < IDLE_S and not _has_ended(sock):
                sock.remaining_s = remaining_s
                return sock, True
            sock.close()
        return BoundedSocket(dial(self._endpoint, remaining_s), remaining_s), False

    def keep(self, sock: BoundedSocket) -> None:
        if len(self._kept) < MOST_KEPT and self._pid == os.getpid():
            self._kept.append(_Kept(sock, _now()))
        else:
            sock.close()

    def close(self) -> None:
        """Closes the kept connections."""
        while self._kept:
            try:
                self._kept.pop().sock.close()
            except IndexError:
                return

    def __del__(self) -> None:
        self.close()  # or Python would warn of each


def _has_ended(sock: BoundedSocket) -> bool:
    poll = select.poll()
    poll.register(sock.sock, select.POLLIN)
    return bool(poll.poll(0))
