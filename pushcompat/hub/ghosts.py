"""Ghosts: streams whose client has gone, while a proxy keeps them open, for ever (lighttpd's default, http-proxy 1.18).

They are found when the same ``client`` follows the same channels on another connection. Which of the two is the ghost?
Clients try several transports at once, and close those that lose; they also look for a better transport beside the one
that works. So nothing is done for ``RACE_S``, which is longer than a client waits for a transport. Then:

- A WebSocket that has answered a ping since is alive, and the client's other streams are ghosts. One that has not is
  asked, and waited for: it is a ghost if it does not answer.
- A poll that came ``RACE_S`` after a stream began speaks for itself: its client would not poll if it had the stream.
- Else the connection that came last is alive: an event stream cannot answer.

Where that is wrong, what is ended is a living stream. It is told ``rotate``, so its client comes back, without loss,
and is then the one that came last: the ghost is next. Two clients that share one name by mistake would end each other
for ever; so each further end within a while takes twice as long.
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

RACE_S = 15  # for how long a client may try several transports: ours give one up after 10 s
_ANSWER_S = 10  # for an answer to a ping: as long as clients wait for a transport
_CHECKS_PER_S = 256
_PATIENT_S = 3600  # the longest wait for clients that share a name
_MAX_REMEMBERED = 10_000

Group = tuple[str, frozenset[Channel]]  # a client, and the channels that it follows more than once


class _Check(NamedTuple):
    due: int
    since: int  # when there was more than one connection
    number: int  # groups have no order
    group: Group


class Ghosts:
    def __init__(self, context: Context) -> None:
        self._sockets = context.sockets
        self._timers = context.timers
        self._race = RACE_S
        self.elsewhere: set[Group] = set()  # clients that have come to another process since
        self._alive: Callable[[Group], None] | None = None
        self._end: Callable[[Connection], None] | None = None
        self._checks: list[_Check] = []  # heap
        self._pending: set[Group] = set()
        self._ended: OrderedDict[Group, tuple[int, int]] = OrderedDict()  # until when it is remembered, and the wait
        self._number = 0

    def on_alive(self, alive: Callable[[Group], None]) -> None:
        """``alive`` is called for a client that has come to another process later, and is alive here all the same."""
        self._alive = alive

    def on_ghost(self, end: Callable[[Connection], None]) -> None:
        self._end = end

    def watch(self, connection: Connection) -> None:
        """Says that a client has subscribed once more."""
        group = connection.client, frozenset(connection.channels)
        if group in self._pending or not any(map(_is_stream, _members(group))):
            return
        self._pending.add(group)
        self._check_in(self._wait(group), self._timers.now, group)

    def watch_elsewhere(self, group: Group) -> None:
        """The same, but in another process."""
        self.elsewhere.add(group)
        if group not in self._pending and any(map(_is_stream, _members(group))):
            self._pending.add(group)
            self._check_in(self._wait(group), self._timers.now, group)

    def tick(self) -> None:
        """A second has passed: looks at those that are due."""
        checks, now = self._checks, self._timers.now
        for _ in range(min(len(checks), _CHECKS_PER_S)):
            if checks[0].due > now:
                break
            check = heapq.heappop(checks)
            wait = self._look(check)
            if wait:
                self._check_in(wait, check.since, check.group)
            else:
                self._pending.discard(check.group)

    def _check_in(self, seconds: int, since: int, group: Group) -> None:
        self._number += 1
        heapq.heappush(self._checks, _Check(self._timers.now + seconds, since, self._number, group))

    def _wait(self, group: Group) -> int:
        until, waited = self._ended.get(group, (0, 0))
        return min(2 * waited, _PATIENT_S) if until > self._timers.now else self._race

    def _look(self, check: _Check) -> int:
        """Ends what is a ghost; returns in how many seconds to look again, 0: not."""
        members = _members(check.group)
        elsewhere = check.group in self.elsewhere
        if len(members) < (1 if elsewhere else 2):
            return 0
        now, streams = self._timers.now, [c for c in members if _is_stream(c)]
        if not streams:
            return 0
        silent = [c for c in streams if _answers(c) and c.heard <= check.since and not self._sockets.has_unread(c)]
        for connection in silent:
            if not connection.pinged:
                connection.pinged = now
                self._sockets.write_later(connection, PING)
        if any(now < c.pinged + _ANSWER_S for c in silent):
            return _ANSWER_S
        ghosts, wait = self._ghosts(members, streams, silent)
        if elsewhere and self._is_alive(check, members, streams, silent):
            assert self._alive is not None
            self._alive(check.group)
        elif elsewhere:
            ghosts, wait = streams, 0
        for connection in ghosts:
            assert self._end is not None
            self._end(connection)
        if ghosts:
            self._remember(check.group)
        return wait

    def _ghosts(
        self, members: Sequence[Connection], streams: Sequence[Connection], silent: Sequence[Connection]
    ) -> tuple[list[Connection], int]:
        alive = [c for c in streams if _answers(c) and c not in silent]
        if alive:
            return [c for c in streams if c not in alive], 0
        polled = max((c.request_started for c in members if not _is_stream(c)), default=0)
        newest = ([c for c in streams if c not in silent] or silent)[-1]
        ghosts = [c for c in streams if c is not newest]
        if not polled:
            return ghosts, 0
        if polled > newest.subscribed_at + self._race:
            return [*ghosts, newest], 0
        return ghosts, self._race

    def _is_alive(
        self, check: _Check, members: Sequence[Connection], streams: Sequence[Connection], silent: Sequence[Connection]
    ) -> bool:
        """Whether the client has been heard of here since it came to another process."""
        return any(_answers(c) and c not in silent for c in streams) or any(
            c.request_started > check.since + self._race for c in members if not _is_stream(c)
        )

    def _remember(self, group: Group) -> None:
        wait = self._wait(group)
        self._ended[group] = self._timers.now + 4 * wait, wait
        self._ended.move_to_end(group)
        if len(self._ended) > _MAX_REMEMBERED:
            self._ended.popitem(last=False)


def _members(group: Group) -> list[Connection]:
    """The client's connections that follow just these channels, in the order in which they came."""
    client, channels = group
    found = connections_of(next(iter(channels)), client)
    return [c for c in found if len(c.channels) == len(channels) and channels.issuperset(c.channels)]


def _is_stream(connection: Connection) -> bool:
    return connection.encoding is not None and not connection.encoding.single_response


def _answers(connection: Connection) -> bool:
    return connection.encoding is not None and connection.encoding.reads_input
