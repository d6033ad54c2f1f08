"""A repeated poll has the same bytes as the one before it, except for the cursor: it is compared instead of parsed.

Many clients send the same header fields (half a kilobyte, for a browser), so one copy of them is kept. Clients with
identical requests share the whole template. Others differ by their ``client`` or ``token``; but pollers that were
answered together poll again with the same cursor, so it is parsed once for all of them.

A template depends on the grant of its poll, and is valid only as long as that grant.
"""

from __future__ import annotations

from functools import lru_cache

from ..message import CURSOR_WIDTH, parse_cursor
from .request import Request


class PollTemplate:
    __slots__ = ("_after", "_at", "_before", "_end", "_epoch", "_fields", "_size", "cursor", "hold")

    def __init__(self, before: bytes, after: bytes, fields: bytes, hold: int, epoch: str) -> None:
        self._before = before  # the request line, up to the cursor
        self._after = after  # and after it
        self._fields = fields
        self._epoch = epoch
        self._at = len(before)
        self._end = len(before) + CURSOR_WIDTH
        self._size = self._end + len(after) + len(fields)
        self.hold = hold  # ticks that the poll is held
        self.cursor = 0  # of the poll that matched last

    def match(self, data: bytes) -> bool:
        """Whether ``data`` is this poll, from a cursor of this epoch, which is then ``cursor``."""
        if len(data) != self._size or not data.startswith(self._before):
            return False
        if not (data.startswith(self._after, self._end) and data.endswith(self._fields)):
            return False
        cursor = _known_cursor(data[self._at : self._end])
        if cursor is None or cursor[0] != self._epoch:
            return False
        self.cursor = cursor[1]
        return True


@lru_cache(64)
def _known_cursor(text: bytes) -> tuple[str, int] | None:
    return parse_cursor(text.decode("latin-1"))


@lru_cache(256)
def _shared(text: bytes) -> bytes:
    return text


_shared_template = lru_cache(256)(PollTemplate)  # shared by clients with identical requests, per epoch


def template(head: bytes, request: Request, cursor: str, hold: int, epoch: str) -> PollTemplate | None:
    """The template to compare the next poll with; None if more than the cursor could change its meaning."""
    if len(cursor) != CURSOR_WIDTH or not request.keep_alive or b"last-event-id" in request.fields.headers:
        return None
    line, end, fields = head.partition(b"\r\n")
    before, found, after = line.partition(b"cursor=" + cursor.encode())
    if not found or "lastEventId" in request.params or b"ursor" in after or b"%" in after:
        return None  # a later parameter could set another position, perhaps percent-encoded
    return _shared_template(_shared(before + b"cursor="), after, _shared(end + fields), hold, epoch)
