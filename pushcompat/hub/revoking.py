"""Ends what revoked subscribers have open in this process: streams, held polls, and subscriptions between two polls.

A revocation is in force for new requests as soon as it is applied. Then all connections are looked at, 0.2 µs each: in
the same turn, before later messages are delivered, or in several turns if they are very many. Revocations that arrive
in the meantime wait for the next round, so that a round always ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from ..access.grant import Grant
from ..access.revocations import Revocation
from .connection import Connection
from .context import Context
from .presence import Presence

_TURN_S = 0.005  # as the loop's
_AT_ONCE = 256  # before the time is checked

End = Callable[[Connection], None]


class Revoking:
    """``end`` ends the subscription of a connection."""

    def __init__(self, context: Context, presence: Presence, end: End) -> None:
        self._sockets = context.sockets
        self._revocations = context.access.revocations
        self._presence = presence
        self._end = end
        self._new: list[Revocation] = []
        self._left: Iterator[Connection] | None = None  # of the current round
        self._revocations.on_revoked(self._new.append)

    def run(self) -> None:
        """Ends what the revocations since the last call apply to."""
        if self._new and self._left is None:
            self._begin()
            self._continue()

    def _begin(self) -> None:
        new = [revocation.target for revocation in self._new]
        self._new.clear()
        # Most connections are none of these; the others are looked at closely
        self._subs = {target.sub for target in new if target.sub}
        self._jtis = {target.jti for target in new if target.jti}
        self._channels = {target.channel for target in new if target.channel and not (target.sub or target.jti)}
        self._presence.forget_absent(self._is_revoked)
        self._left = iter(list(self._sockets.connections()))

    def _continue(self) -> None:
        until = time.monotonic() + _TURN_S
        assert self._left is not None
        for number, connection in enumerate(self._left):
            grant = connection.subscriber
            if grant is not None and self._is_revoked(grant, [channel.name for channel in connection.channels]):
                self._end_one(connection)
            if number % _AT_ONCE == 0 and time.monotonic() > until:
                asyncio.get_running_loop().call_soon(self._continue)
                return
        self._left = None
        self.run()

    def _is_revoked(self, grant: Grant, names: Sequence[str]) -> bool:
        if not (grant.sub in self._subs or grant.jti in self._jtis or not self._channels.isdisjoint(names)):
            return False
        return self._revocations.is_refused(grant.sub, grant.jti, grant.issued_at, names)

    def _end_one(self, connection: Connection) -> None:
        try:
            self._end(connection)
        except Exception:
            self._sockets.log_bug_and_abort(connection)
