"""Subscribing and unsubscribing: which connection has which channels, and from which cursor. ``presence`` counts
clients.

Resuming is subscribing with a cursor other than the head. The cursor can be:

    absent, empty          from now
    earliest               from the oldest retained message; with ``last=N``, from the Nth newest
    of another epoch, or invalid    UNKNOWN_POSITION, which is below every floor: a reset is sent first
    ahead of this process  another process was faster: waits for the log. Ahead of the log itself: a reset is sent
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .. import logs
from ..errors import Unavailable
from ..logs import Event
from ..message import EARLIEST, parse_cursor
from ..store.presence import Registry
from ..wire.encoding import Encoding
from ..wire.negotiation import newest
from ..wire.request import Request
from .ahead import Ahead
from .channel import Channel
from .connection import Connection
from .context import Context
from .ghosts import Ghosts
from .history import UNKNOWN_POSITION
from .occupancy import Occupancy
from .presence import Presence
from .reasons import CloseReason
from .sharing import Sharing
from .timers import NEVER

_MAX_CLIENT_CHARACTERS = 64
_FULL_RETRY_S = 5  # the usual duration of a wave of reconnections


class Subscriptions:
    def __init__(
        self, context: Context, ahead: Ahead, registry: Registry | None = None, occupancy: Occupancy | None = None
    ) -> None:
        self._context = context
        self._ahead = ahead
        self._history = context.history
        self._timers = context.timers
        self._metrics = context.metrics
        self.presence = Presence(context)
        self.ghosts = Ghosts(context)
        self.sharing = Sharing(context, self.presence, self.ghosts, registry, occupancy)
        context.sockets.on_end(self._ended)

    def join(
        self, connection: Connection, request: Request, names: Sequence[str], encoding: Encoding, cursor: str
    ) -> None:
        """Subscribes from ``cursor``, or keeps the connection's subscription and sets its position. Raises Unavailable
        if the server is full, BadRequest for a parameter.
        """
        last = newest(request.params) if cursor == EARLIEST else None
        client = request.params.get("client", "")[:_MAX_CLIENT_CHARACTERS]
        before, known = connection.encoding, connection.client
        if (
            before is None
            or before.transport != encoding.transport
            or client != known
            or tuple([c.name for c in connection.channels]) != tuple(names)
        ):
            if client != known and known:  # a proxy reuses connections for other clients
                self.leave(connection, CloseReason.CONNECTION_REUSED, may_return=True)
            elif before is not None:
                self.leave(connection, CloseReason.CHANNELS_CHANGED)
            self._context.peers.check_subscriber(connection.peer)
            if self._context.sockets.full:
                self._metrics.limited["connections"] += 1
                raise Unavailable(
                    "the server has reached its maximum number of subscribers; try again later", _FULL_RETRY_S
                )
            self._enter(connection, names, encoding, client)
        else:
            connection.subscribe(connection.channels, encoding, client, connection.subscribed_at)
        self._start(connection, cursor, last)

    def _enter(self, connection: Connection, names: Sequence[str], encoding: Encoding, client: str) -> None:
        channels = tuple(map(self._history.channel, names))
        connection.subscribe(
            channels if len(channels) > 1 else channels[0].as_tuple, encoding, client, self._timers.now
        )
        if self.presence.enter(connection):
            self.ghosts.watch(connection)
        self._metrics.subscriptions[encoding.transport] += 1
        if logs.enabled(logging.DEBUG):
            logs.event(
                Event.SUBSCRIBE,
                logging.DEBUG,  # a line is a seventh of a handshake, and a wave of reconnections brings thousands
                channels=names,
                transport=encoding.transport,
                client=client or None,
                address=connection.client_address,
            )

    def _start(self, connection: Connection, text: str, last: int | None) -> None:
        history = self._history
        if not text:
            connection.start_at(history.head)
        elif text == EARLIEST:
            floors = {channel: channel.floor for channel in connection.channels}
            start = min(floors.values())
            if last is not None:
                start = max(start, self._before_last(connection.channels, last))
            connection.start_at(start, floors if len(floors) > 1 else None)
        else:
            self._metrics.resumes += 1
            cursor = parse_cursor(text)
            known = cursor is not None and cursor[0] == history.epoch
            self.resume(connection, cursor[1] if known and cursor else UNKNOWN_POSITION)

    def _before_last(self, channels: Sequence[Channel], count: int) -> int:
        """The position before the last ``count`` messages of all these channels; 0 if there are no more than these."""
        if not count:
            return self._history.head
        found = [message.sequence for channel in channels for message in channel.newest(count + 1)]
        return sorted(found)[-count - 1] if len(found) > count else 0

    def resume(self, connection: Connection, cursor: int) -> None:
        """Resumes from a position of this epoch."""
        connection.start_at(cursor)
        if cursor > self._history.head:
            self._ahead.add(connection)

    def cursor(self, connection: Connection) -> str:
        """The connection's position after everything sent, as text.

        If it is below a floor that the connection ignores, only ``earliest`` can express that.
        """
        cursor, ignored = connection.cursor, connection.ignored_floors
        if ignored is not None and cursor < max(ignored.values()):
            return EARLIEST
        return self._history.cursor(self._history.position(cursor, connection.channels))

    def note_positions(self) -> None:
        """Before the log is reloaded: the global floor may then be above the last message of a quiet channel, whose
        subscribers have missed nothing.
        """
        for connection in self._context.sockets.connections():
            if connection.channels:
                connection.cursor = self._history.position(connection.cursor, connection.channels)

    def start_over(self) -> None:
        """New epoch: all cursors of the old one are invalid."""
        for connection in self._context.sockets.connections():
            connection.poll_template = None
            connection.start_at(UNKNOWN_POSITION)

    # Leaving

    def leave(self, connection: Connection, reason: CloseReason, *, may_return: bool = False) -> None:
        """Ends the subscription. ``may_return``: it is a poller that may poll again on another connection."""
        channels, encoding = connection.channels, connection.encoding
        if not channels or encoding is None:
            return
        grant = connection.subscriber
        connection.unsubscribe()
        self.presence.leave(connection, channels, grant, may_return and encoding.single_response)
        self._metrics.subscriptions[encoding.transport] -= 1
        self._metrics.unsubscribes[reason] += 1
        if logs.enabled(logging.DEBUG):
            logs.event(
                Event.UNSUBSCRIBE,
                logging.DEBUG,
                channels=[channel.name for channel in channels],
                transport=encoding.transport,
                client=connection.client or None,
                address=connection.client_address,
                reason=reason,
                code=None if connection.input is None else connection.input.close_code,
                duration_s=self._timers.now - connection.subscribed_at,
            )

    def _ended(self, connection: Connection, reason: CloseReason) -> None:
        self.leave(connection, reason, may_return=connection.expires_at == NEVER)

    def tick(self) -> None:
        """A second has passed."""
        self.presence.tick()
        self.sharing.tick()
        self.ghosts.tick()
