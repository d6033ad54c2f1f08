"""Long-polls: held until there are messages, or until the window ends."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..wire.longpoll import PollEncoding
from ..wire.negotiation import hold_s, requested_cursor, text_format
from ..wire.polls import template
from ..wire.request import Request
from .connection import Connection, State
from .context import Context
from .fanout import Fanout
from .reasons import CloseReason
from .responses import Responses
from .subscriptions import Subscriptions

_POLLING = State.POLLING


class Polls:
    def __init__(self, context: Context, subscriptions: Subscriptions, fanout: Fanout, responses: Responses) -> None:
        self._context = context
        self._history = context.history
        self._timers = context.timers
        self._window_s = context.limits.poll_s
        self._subscriptions = subscriptions
        self._fanout = fanout
        self._responses = responses
        self._encodings: dict[tuple[bytes, bool], PollEncoding] = {}  # by CORS lines and keep-alive

    def start(self, connection: Connection, request: Request, names: Sequence[str], head: bytes) -> None:
        """Answers the poll, or holds it. ``head``: its bytes. Raises RequestError."""
        if request.params.get("format"):
            text_format(request.params, "json")
        hold = self._ticks(hold_s(request.params, self._window_s))
        encoding = self._encoding(connection, request.keep_alive)
        cursor = requested_cursor(request, self._history.epoch)
        if not cursor and (hold < 1 or not request.params.get("wait")):
            # It only requests a cursor: no subscription, so that made-up names use no memory.
            self._context.sockets.write_later(connection, encoding.ping(self._history.cursor(self._history.head)))
            self._responses.sent(connection, encoding.keep_alive)
            return
        self._subscriptions.join(connection, request, names, encoding, cursor)
        connection.poll_template = template(head, request, cursor, hold, self._history.epoch)
        connection.move(_POLLING)
        self._hold(connection, hold)

    def repeat(self, connection: Connection, data: bytes) -> bool:
        """If ``data`` equals the connection's last poll except for the cursor, handles it and returns True.

        Parsing a poll costs 8 µs more than comparing it (bench: long-poll).
        """
        poll, grant = connection.poll_template, connection.subscriber
        if poll is None or grant is None or not poll.match(data):
            return False
        now = self._timers.now
        if self._context.draining or grant.until <= now:
            return False
        if connection.grant is not grant:
            connection.grant = grant
        connection.request_started = now
        self._subscriptions.resume(connection, poll.cursor)
        connection.move(_POLLING)
        self._hold(connection, poll.hold)
        return True

    def _hold(self, connection: Connection, ticks: int) -> None:
        """Answers now if there are messages, otherwise when there are, at the latest after ``ticks``, or when the grant
        ends: then the next poll is refused.
        """
        if self._context.draining:
            self.rotate(connection)
            return
        cursor = connection.cursor
        for channel in connection.channels:
            if channel.head > cursor:
                self._fanout.catch_up(connection)
                if connection.state is not _POLLING:
                    return
                break
        if ticks < 1:
            self.window_ends(connection)
            return
        assert connection.grant is not None
        connection.expires_at = min(connection.request_started + ticks, connection.grant.until)
        self._timers.set(connection, connection.expires_at)

    def window_ends(self, connection: Connection) -> None:
        """Answers a poll without messages."""
        encoding = connection.encoding
        assert encoding is not None
        self._answer(connection, encoding.ping(self._subscriptions.cursor(connection)), encoding.keep_alive)

    def rotate(self, connection: Connection) -> None:
        """Answers a poll with ``retry``."""
        encoding = connection.encoding
        assert encoding is not None
        encoding = self._encoding(connection, encoding.keep_alive and not self._context.replaced)
        cursor = self._subscriptions.cursor(connection)
        self._answer(connection, encoding.rotate(cursor, self._context.retry_ms()), encoding.keep_alive)

    def leave(self, connection: Connection, *, may_return: bool = False) -> None:
        """Ends the subscription of a poller between two polls. ``may_return``: it may poll again, on any connection."""
        self._subscriptions.leave(connection, CloseReason.LEFT, may_return=may_return)

    def _answer(self, connection: Connection, data: bytes, keep_alive: bool) -> None:
        self._context.sockets.write_later(connection, data)
        self._responses.sent(connection, keep_alive)

    def _ticks(self, seconds: float) -> int:
        """A hold in ticks, with 10 % jitter: polls that started together must not end together."""
        return max(1, int(seconds * random.uniform(0.9, 1.0))) if seconds >= 1 else 0

    def _encoding(self, connection: Connection, keep_alive: bool) -> PollEncoding:
        cors = b"" if connection.grant is None else connection.grant.cors
        key = cors, keep_alive
        encoding = self._encodings.get(key)
        if encoding is None:
            encoding = self._encodings[key] = PollEncoding(*key)
        return encoding
