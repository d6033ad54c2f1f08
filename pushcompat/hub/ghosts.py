"""Ends ghosts: streams that a proxy keeps open after the client has gone (lighttpd's default and http-proxy 1.18 do).

A ghost is detected if the same client has several connections to the same channels, in this process or in another.
Clients race transports and close those that lose, and try better transports beside the one that works. So only streams
that are at least ``RACE_S`` old are judged, which is longer than a client waits for a transport. Of these:

- A WebSocket that has answered a ping since the last of them was opened is alive, and the others are ghosts. One that
  has not is pinged, and is a ghost if it does not answer.
- Otherwise, if a poll came more than ``RACE_S`` after the last of them was opened, all are ghosts: a client that has a
  stream does not poll.
- Otherwise the last one that was opened is alive: an event stream cannot answer.

If this is wrong, a living stream is ended. It ends with ``rotate``, so its client reconnects without loss, and then has
the stream that was opened last. Two clients with the same id, by mistake, would end each other's streams again and
again; so the time before the next end doubles, up to ``_PATIENT_S``.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..wire.websocket import PING
from .channel import Channel
from .connection import Connection
from .context import Context
from .presence import connections_of

RACE_S = 15  # how long a client may try several transports: ours abandon one after 10 s
_ANSWER_S = 10  # time to answer a ping: as long as clients wait for a transport
_CHECKS_PER_S = 256
_PATIENT_S = 300  # the longest wait for clients that share a name; a client with ghosts may be one of them
_MAX_REMEMBERED = 10_000

Group = tuple[str, frozenset[Channel]]  # a client, and the channels that it has several connections for


class _Check(NamedTuple):
    due: int
    number: int  # groups have no order
    group: Group


class Ghosts:
    def __init__(self, context: Context) -> None:
        self._sockets = context.sockets
        self._timers = context.timers
        self._race = RACE_S
        self.elsewhere: dict[Group, int] = {}  # clients that have connected to another process, and when
        self._alive: Callable[[Group], None] | None = None
        self._end: Callable[[Connection], None] | None = None
        self._checks: list[_Check] = []  # heap
        self._pending: set[Group] = set()
        self._ended: OrderedDict[Group, tuple[int, int]] = OrderedDict()  # when the entry expires, and the delay
        self._number = 0

    def on_alive(self, alive: Callable[[Group], None]) -> None:
        """``alive`` is called for a client that has connected to another process later, but is still alive here."""
        self._alive = alive

    def on_ghost(self, end: Callable[[Connection], None]) -> None:
        self._end = end

    def watch(self, connection: Connection) -> None:
        """Notes that a client has subscribed again."""
        self._plan((connection.client, frozenset(connection.channels)))

    def watch_elsewhere(self, group: Group) -> None:
        """The same, but in another process."""
        self.elsewhere[group] = self._timers.now
        self._plan(group)

    def tick(self) -> None:
        """A second has passed: makes the checks that are due."""
        checks, now = self._checks, self._timers.now
        for _ in range(min(len(checks), _CHECKS_PER_S)):
            if checks[0].due > now:
                break
            check = heapq.heappop(checks)
            wait = self._look(check.group)
            if wait:
                self._check_in(wait, check.group)
            else:
                self._pending.discard(check.group)

    def _plan(self, group: Group) -> None:
        if group not in self._pending and any(map(_is_stream, _members(group))):
            self._pending.add(group)
            self._check_in(self._wait(group), group)

    def _check_in(self, seconds: int, group: Group) -> None:
        self._number += 1
        heapq.heappush(self._checks, _Check(self._timers.now + seconds, self._number, group))

    def _wait(self, group: Group) -> int:
        until, waited = self._ended.get(group, (0, 0))
        return min(2 * waited, _PATIENT_S) if until > self._timers.now else self._race

    def _look(self, group: Group) -> int:
        """Ends ghosts; returns the seconds until the next check, 0: none."""
        members, now = _members(group), self._timers.now
        opened = {c: c.subscribed_at for c in members if _is_stream(c)}
        elsewhere = self.elsewhere.get(group)
        if not opened or (len(members) < 2 and elsewhere is None):
            return 0
        young = [when for when in (*opened.values(), elsewhere or 0) if now < when + self._race]
        again = min(young) + self._race - now if young else 0
        streams = [c for c, when in opened.items() if now >= when + self._race]
        if elsewhere is not None and now < elsewhere + self._race:
            elsewhere = None
        if not streams:
            return again
        since = max([elsewhere or 0, *map(opened.__getitem__, streams)])
        silent = self._ping([c for c in streams if _answers(c) and c.heard <= since])
        if any(now < c.pinged + _ANSWER_S for c in silent):
            return _ANSWER_S
        alive = [c for c in streams if _answers(c) and c not in silent]
        polled = max([c.request_started for c in members if not _is_stream(c)], default=0)
        is_here = bool(alive) or polled > since + self._race
        if elsewhere is not None and is_here:
            assert self._alive is not None
            self._alive(group)
        elif elsewhere is None and not is_here:
            alive = ([c for c in streams if c not in silent] or silent)[-1:]
        ghosts = [c for c in streams if c not in alive]
        for connection in ghosts:
            assert self._end is not None
            self._end(connection)
        if ghosts:
            self._remember(group)
        return again or (self._race if polled and alive and not is_here else 0)

    def _ping(self, connections: Sequence[Connection]) -> list[Connection]:
        """Pings those that were not pinged yet; returns all without unread input."""
        silent = [c for c in connections if not self._sockets.has_unread(c)]
        for connection in silent:
            if not connection.pinged:
                connection.pinged = self._timers.now
                self._sockets.write_later(connection, PING)
        return silent

    def _remember(self, group: Group) -> None:
        wait = self._wait(group)
        self._ended[group] = self._timers.now + 4 * wait, wait
        self._ended.move_to_end(group)
        if len(self._ended) > _MAX_REMEMBERED:
            self._ended.popitem(last=False)


def _members(group: Group) -> list[Connection]:
    """The client's connections with exactly these channels, oldest first."""
    client, channels = group
    found = connections_of(next(iter(channels)), client)
    return [c for c in found if len(c.channels) == len(channels) and channels.issuperset(c.channels)]


def _is_stream(connection: Connection) -> bool:
    return connection.encoding is not None and not connection.encoding.single_response


def _answers(connection: Connection) -> bool:
    return connection.encoding is not None and connection.encoding.reads_input
