"""A client's position in the log, and the cursor of its next request (docs/protocol.md sections 3 and 12).

``earliest`` is requested again on each connection until the server has sent a cursor to resume from, because only with
``earliest`` are messages that were evicted before the subscription not reported as lost. Until then, messages that were
received before are recognised by their ids and dropped.
"""

from __future__ import annotations

EARLIEST = "earliest"


class Position:
    """``requested`` is the cursor of the next request."""

    def __init__(self, cursor: str = "") -> None:
        self.requested = cursor
        self._last_id = ""  # of the messages received while `earliest` is requested
        self._opened_at = EARLIEST  # the cursor of this connection's `open`; a poll has none

    @property
    def mark(self) -> tuple[str, str]:
        """Changes with each new message or cursor."""
        return self.requested, self._last_id

    def contradicts(self, cursor: str) -> bool:
        """Whether the epoch differs from that of the messages received after ``earliest``.

        Some of the old epoch's messages may be lost then. The next request has the cursor of the last one, so that the
        response is a ``reset``.
        """
        if self.requested != EARLIEST or not self._last_id or not _epoch(cursor) or _same_epoch(cursor, self._last_id):
            return False
        self.requested = self._last_id
        return True

    def connecting(self) -> None:
        self._opened_at = EARLIEST

    def opened(self, cursor: str) -> None:
        """The cursor of ``open``."""
        self._opened_at = cursor
        if self.requested != EARLIEST:
            self.reached(cursor)

    def received(self, message_id: str) -> bool:
        """Whether the message is new."""
        if self.requested == EARLIEST:
            return self._received_after_earliest(message_id)
        if _reaches(self.requested, message_id):
            return False
        self.requested = message_id
        return True

    def _received_after_earliest(self, message_id: str) -> bool:
        is_news = message_id > self._last_id
        self._last_id = max(message_id, self._last_id)
        if _reaches(message_id, self._opened_at):
            self.requested = self._last_id
        return is_news

    def reached(self, cursor: str) -> None:
        """The cursor of ``ping``, ``rotate`` or a poll's response: everything up to it was sent.

        One of another epoch is ignored: a ``reset`` follows, and would be missed if the connection were lost before it.
        """
        if not _epoch(cursor):
            return
        if self.requested == EARLIEST:
            if self._opened_at == EARLIEST or _reaches(cursor, self._opened_at):
                self.requested = max(cursor, self._last_id)
        elif not self.requested or _reaches(cursor, self.requested):
            self.requested = cursor

    def reset(self, cursor: str) -> None:
        self.requested = cursor


def _epoch(cursor: str) -> str:
    return cursor.rpartition("-")[0]


def _same_epoch(one: str, other: str) -> bool:
    return bool(_epoch(one)) and _epoch(one) == _epoch(other)


def _reaches(cursor: str, other: str) -> bool:
    return _same_epoch(cursor, other) and cursor >= other
