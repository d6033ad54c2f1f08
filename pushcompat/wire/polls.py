"""A repeated poll: the same bytes as the one before it but for the cursor, so it is compared and not parsed.

Header fields are the same for many clients (and half a kilobyte, of a browser), so there is one copy of them. Where
clients say nothing of their own, the whole template is shared; and pollers that were answered together come back with
the same cursor, so the line that came last is the line to expect.

A template rests on the grant that its poll was admitted with, and is of use for as long as that grant holds.
"""

from __future__ import annotations

from functools import lru_cache

from ..message import CURSOR_WIDTH, parse_cursor
from .request import Request


class PollTemplate:
    __slots__ = ("after", "before", "cursor", "epoch", "fields", "hold", "line")

    def __init__(self, before: bytes, after: bytes, fields: bytes, hold: int, epoch: str) -> None:
        self.before = before  # the request line, up to the cursor
        self.after = after  # and behind it
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
        cursor = parse_cursor(line[at : at + CURSOR_WIDTH].decode("latin-1"))
        if cursor is None or cursor[0] != self.epoch:
            return False
        self.cursor, self.line = cursor[1], line
        return True


@lru_cache(256)
def _shared_fields(fields: bytes) -> bytes:
    return fields


_shared_template = lru_cache(256)(PollTemplate)  # one for all clients that say the same, in one epoch of the log


def template(head: bytes, request: Request, cursor: str, hold: int, epoch: str) -> PollTemplate | None:
    """What to compare the next poll with; None where more than its cursor could change its meaning."""
    if len(cursor) != CURSOR_WIDTH or not request.keep_alive or b"last-event-id" in request.fields.headers:
        return None
    line, end, fields = head.partition(b"\r\n")
    before, found, after = line.partition(b"cursor=" + cursor.encode())
    if not found or "lastEventId" in request.params or b"ursor" in after or b"%" in after:
        return None  # a parameter behind this one could name another position, perhaps in percent-escapes
    return _shared_template(before + b"cursor=", after, _shared_fields(end + fields), hold, epoch)
