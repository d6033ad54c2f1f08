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

from .dial import BoundedSocket, Endpoint, Remaining, dial

IDLE_S = 55.0
MOST_KEPT = 8


_Kept = deque[tuple[BoundedSocket, float]]  # the last used one at the end; since when; its methods are atomic


class Pool:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._by_process: dict[int, _Kept] = {}

    def take(self, remaining_s: Remaining) -> tuple[BoundedSocket, bool]:
        """A connection, and whether it was kept. Raises OSError."""
        kept = self._kept()
        while kept:
            try:
                sock, since = kept.pop()
            except IndexError:
                break  # another thread was faster
            if _now() - since < IDLE_S and not _has_ended(sock):
                sock.remaining_s = remaining_s
                return sock, True
            sock.close()
        return BoundedSocket(dial(self._endpoint, remaining_s), remaining_s), False

    def keep(self, sock: BoundedSocket) -> None:
        kept = self._kept()
        if len(kept) < MOST_KEPT:
            kept.append((sock, _now()))
        else:
            sock.close()

    def close(self) -> None:
        """Closes the kept connections."""
        _close(self._kept())

    def _kept(self) -> _Kept:
        """Those of this process. After a fork several threads may come here at once: none gets one of the parent's."""
        pid = os.getpid()
        kept = self._by_process.get(pid)
        if kept is None:
            kept = self._by_process.setdefault(pid, deque())
            for other in set(self._by_process) - {pid}:
                _close(self._by_process.pop(other, deque()))  # closed here, they stay open there
        return kept

    def __del__(self) -> None:
        self.close()  # or Python would warn of each


def _close(kept: _Kept) -> None:
    while kept:
        try:
            kept.pop()[0].close()
        except IndexError:
            return


def _has_ended(sock: BoundedSocket) -> bool:
    poll = select.poll()
    poll.register(sock.sock, select.POLLIN)
    return bool(poll.poll(0))
