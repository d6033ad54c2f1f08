"""The subscribers of a channel in this process, counted: named clients once, and pollers also between two polls.

A client that sends a ``client`` id is *named*. It counts once in a channel, whatever connections it has there: several
transports during a race, an old connection that a proxy keeps open, a poll that ended a moment ago. Clients without an
id count by connection; between two polls only while no other client uses their connection.

A channel has

    subscribers   its connections
    clients       named clients by id: their only connection, or a ``Named``
    absent        the ticks at which pollers without an id and without a connection cease to count, in order
    beyond        its number of subscribers, less its number of connections

so a count is one addition, and a subscription without an id costs nothing more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ..access.grant import Grant
from .channel import Channel
from .connection import Connection
from .context import Context

_Absent = tuple[int, Channel, str, Grant | None]  # until when, where, who, by what right
_MAX_ABSENT = 10_000  # pollers without a connection that still count, by channel: about 1 KiB each


class Named:
    """A named client of a channel, unless it has exactly one connection and counts here.

    ``connections`` in the order of their subscriptions; ``until``: the tick until which the client counts without a
    connection, or 0; ``elsewhere``: it counts in another process.
    """

    __slots__ = ("connections", "elsewhere", "until")

    def __init__(self, *connections: Connection) -> None:
        self.connections = list(connections)
        self.until = 0
        self.elsewhere = False

    @property
    def beyond(self) -> int:
        count = len(self.connections)
        return (1 if (count or self.until) and not self.elsewhere else 0) - count


class Others(Protocol):
    """Gets the subscriptions of named clients, for the other processes; see ``sharing``."""

    def enter(self, connection: Connection) -> None: ...

    def leave(self, connection: Connection, channels: Sequence[Channel], may_return: bool) -> None: ...


class Presence:
    def __init__(self, context: Context) -> None:
        self._history = context.history
        self._timers = context.timers
        self._grace = int(context.limits.poll_grace_s)
        self._changed: set[str] | None = None
        self._others: Others | None = None
        self._absent: deque[_Absent] = deque()  # pollers between two connections

    def share(self, changed: set[str], others: Others | None) -> None:
        """Adds to ``changed`` the names of channels whose number of subscribers changes."""
        self._changed, self._others = changed, others

    def enter(self, connection: Connection) -> bool:
        """Counts it in its channels. Returns whether its client has another connection in one of them."""
        client, also = connection.client, False
        for channel in connection.channels:
            channel.subscribers.add(connection)
            if client:
                also = self._enter_named(channel, connection, client) or also
            elif channel.absent and connection.encoding is not None and connection.encoding.single_response:
                del channel.absent[0]  # a poller that was between two connections polls again
                channel.beyond -= 1
        if self._changed is not None:
            self._changed.update([channel.name for channel in connection.channels])
            if client and self._others is not None:
                self._others.enter(connection)
        return also

    def leave(self, connection: Connection, channels: Sequence[Channel], grant: Grant | None, may_return: bool) -> None:
        """``grant``: that it subscribed with. ``may_return``: it is a poller that may poll again on another
        connection.
        """
        client = connection.client
        for channel in channels:
            channel.subscribers.discard(connection)
            if client:
                self._leave_named(channel, connection, client, self._timers.now + self._grace if may_return else 0)
            if may_return:
                self._note_absent(channel, client, grant)
            self._history.discard_if_idle(channel)
        if self._changed is not None:
            self._changed.update([channel.name for channel in channels])
            if client and self._others is not None:
                self._others.leave(connection, channels, may_return)
        while may_return and len(self._absent) > _MAX_ABSENT:
            self._forget(*self._absent.popleft())

    def _note_absent(self, channel: Channel, client: str, grant: Grant | None) -> None:
        until = self._timers.now + self._grace
        self._absent.append((until, channel, client, grant))
        if not client:
            if channel.absent is None:
                channel.absent = []
            channel.absent.append(until)
            channel.beyond += 1

    def tick(self) -> None:
        """Removes the pollers whose grace period has ended."""
        while self._absent and self._absent[0][0] <= self._timers.now:
            self._forget(*self._absent.popleft())

    def forget_absent(self, over: Callable[[Grant, Sequence[str]], bool]) -> None:
        """Removes pollers between two connections now if ``over(grant, channel names)``."""
        stay: deque[_Absent] = deque()
        for absent in self._absent:
            _, channel, _, grant = absent
            if grant is not None and over(grant, (channel.name,)):
                self._forget(*absent)
            else:
                stay.append(absent)
        self._absent = stay

    def move(self, client: str, channels: Iterable[Channel], *, elsewhere: bool) -> None:
        """The client counts in another process, or here again."""
        for channel in channels:
            known = None if channel.clients is None else channel.clients.get(client)
            if channel.clients is None or known is None:
                continue
            if not isinstance(known, Named):
                known = channel.clients[client] = Named(known)
            channel.beyond -= known.beyond
            known.elsewhere = elsewhere
            channel.beyond += known.beyond
            _simplify(channel, client)
            if self._changed is not None:
                self._changed.add(channel.name)

    # Named clients

    def _enter_named(self, channel: Channel, connection: Connection, client: str) -> bool:
        clients = channel.clients
        if clients is None:
            clients = channel.clients = {}
        known = clients.get(client)
        if known is None:
            clients[client] = connection
            return False
        if not isinstance(known, Named):
            known = clients[client] = Named(known)
        channel.beyond -= known.beyond
        known.until = 0
        known.elsewhere = False
        known.connections.append(connection)
        channel.beyond += known.beyond
        _simplify(channel, client)
        return len(known.connections) > 1

    def _leave_named(self, channel: Channel, connection: Connection, client: str, until: int) -> None:
        clients = channel.clients
        known = None if clients is None else clients.get(client)
        if clients is not None and known is connection and not until:
            del clients[client]
            if not clients:
                channel.clients = None
            return
        if known is connection:
            known = Named(connection)
        if clients is None or known is None or connection not in known.connections:
            return
        clients[client] = known
        channel.beyond -= known.beyond
        known.connections.remove(connection)
        known.until = until or known.until
        channel.beyond += known.beyond
        _simplify(channel, client)

    def _forget(self, until: int, channel: Channel, client: str, _grant: Grant | None) -> None:
        if not client:
            if not channel.absent or until not in channel.absent:
                return  # it polls again
            channel.absent.remove(until)
            channel.beyond -= 1
        else:
            known = channel.clients and channel.clients.get(client)
            if not isinstance(known, Named) or known.until != until:
                return
            channel.beyond -= known.beyond
            known.until = 0
            channel.beyond += known.beyond
            _simplify(channel, client)
        if self._changed is not None:
            self._changed.add(channel.name)
        self._history.discard_if_idle(channel)


def connections_of(channel: Channel, client: str) -> Sequence[Connection]:
    """A named client's connections in the channel, oldest first."""
    known = None if channel.clients is None else channel.clients.get(client)
    if known is None:
        return ()
    return known.connections if isinstance(known, Named) else (known,)


def _simplify(channel: Channel, client: str) -> None:
    """Most clients have one connection: only that is kept for these, and nothing for clients without one."""
    clients = channel.clients
    assert clients is not None
    known = clients[client]
    if known.until:
        return
    if len(known.connections) == 1 and not known.elsewhere:
        clients[client] = known.connections[0]
    elif not known.connections:
        del clients[client]
        if not clients:
            channel.clients = None
