"""Bodies of publishers that have not proved who they are: of signed publishes, whose signature includes the body, and
of channels to which anyone may publish.

They could begin any number of bodies and complete none. So only some of them may be incomplete at once, and the oldest
one makes room for another: a body that arrives with its head is never among them, and a usual one not for long.
"""

from __future__ import annotations

from collections.abc import Callable

from .connection import Connection

MOST = 64  # bodies; of 1 MiB each if they are batches


class Unproven:
    """``refuse`` answers the request of a connection whose place is needed."""

    def __init__(self, refuse: Callable[[Connection], None]) -> None:
        self._refuse = refuse
        self._waiting: dict[Connection, None] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection: Connection) -> None:
        self._waiting[connection] = None
        if len(self._waiting) > MOST:
            oldest = next(iter(self._waiting))
            self.remove(oldest)
            self._refuse(oldest)

    def remove(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
