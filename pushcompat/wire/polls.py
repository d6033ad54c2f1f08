"""A repeated poll has the same bytes as the one before it, except for the cursor: it is compared instead of parsed.

Many clients send the same header fields (half a kilobyte, for a browser), so one copy of them is kept. Clients with
identical requests share the whole template. Pollers that were answered together poll again with the same cursor, so the
last request line is compared first; and a cursor is parsed once for all clients whose requests differ, by their token
for example.

A template depends on the grant of its poll, and is valid only as long as that grant.
"""

from __future__ import annotations

from functools import lru_cache

from ..message import CURSOR_WIDTH, parse_cursor
from .request import Request


class PollTemplate:
    __slots__ = ("after", "before", "cursor", "epoch", "fields", "hold", "line")

    def __init__(self, before: bytes, after: bytes, fields: bytes, hold: int, epoch: str) -> None:
        self.before = before  # the request line, up to the cursor
        self.after = after  # and after it
        self.fields = fields
        self.hold = hold  # ticks that the poll is held
        self.epoch = epoch
        self.line = b""  # the line that matched last, and the cursor in it
        self.cursor = 0

    def match(self, data: bytes) -> bool:
        """Whether ``data`` is this poll, from a cursor of this epoch, which is then ``cursor``."""
        fields = self.fields
        if not data.endswith(fields):
            return False
        line = data[: -len(fields)]
        return line == self.line or self._match_line(line)

    def _match_line(self, line: bytes) -> bool:
        at = len(self.before)
        if len(line) != at + CURSOR_WIDTH + len(self.after):
            return False
        if not (line.startswith(self.before) and line.endswith(self.after)):
            return False
        cursor = _known_cursor(line[at : at + CURSOR_WIDTH])
        if cursor is None or cursor[0] != self.epoch:
            return False
        self.cursor, self.line = cursor[1], line
        return True


@lru_cache(64)
def _known_cursor(text: bytes) -> tuple[str, int] | None:
    return parse_cursor(text.decode("latin-1"))


@lru_cache(256)
def _shared_fields(fields: bytes) -> bytes:
    return fields


_shared_template = lru_cache(256)(PollTemplate)  # shared by clients with identical requests, per epoch


def template(head: bytes, request: Request, cursor: str, hold: int, epoch: str) -> PollTemplate | None:
    """The template to compare the next poll with; None if more than the cursor could change its meaning."""
    if len(cursor) != CURSOR_WIDTH or not request.keep_alive or b"last-event-id" in request.fields.headers:
        return None
    line, end, fields = head.partition(b"\r\n")
    before, found, after = line.partition(b"cursor=" + cursor.encode())
    if not found or "lastEventId" in request.params or b"ursor" in after or b"%" in after:
        return None  # a later parameter could set another position, perhaps percent-encoded
    return _shared_template(before + b"cursor=", after, _shared_fields(end + fields), hold, epoch)
