"""Presence over all processes that share the log.

Changes are collected, and exchanged through the registry twice a second, so a single subscription causes no exchange.
Named clients are exchanged as hashes of their id and channels. A client counts in the process to which it came last.
When it leaves that process (a transport that lost a race), or the process dies, it counts again where it still has a
connection. If it has a stream here and came to another process later, the stream may be a ghost.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b

from .. import logs
from ..logs import Event
from ..store.base import StoreError
from ..store.presence import Changes, News, Peers, Registry
from .channel import Channel
from .connection import Connection
from .context import Context
from .ghosts import Ghosts, Group
from .occupancy import Occupancy
from .presence import Presence

EXCHANGES_APART_S = 0.5
_CLOSE_S = 2.0
_AFTER_BUG_S = 5.0
_FAILURES = 3  # in a row before a log line: workers that start together may block each other
_PENDING = 1 << 62  # later than any note
_MAX_AWAY = 10_000  # names of pollers between two connections


class _Client:
    """A named client of this process. ``note``: the number of the last note that named it, ours or another process's;
    ``elsewhere``: the process to which it came later, or empty.
    """

    __slots__ = ("channels", "client", "connections", "elsewhere", "note", "told", "until")

    def __init__(self, client: str, channels: Sequence[Channel]) -> None:
        self.client = client
        self.channels = channels
        self.connections = 0
        self.until = 0
        self.note = _PENDING
        self.told = False  # a note has reported it
        self.elsewhere = ""

    @property
    def group(self) -> Group:
        return self.client, frozenset(self.channels)


class Sharing:
    """``occupancy`` is notified of each channel whose number of subscribers has changed, in any process."""

    def __init__(
        self,
        context: Context,
        presence: Presence,
        ghosts: Ghosts,
        registry: Registry | None,
        occupancy: Occupancy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._history = context.history
        self._timers = context.timers
        self._grace = int(context.limits.poll_grace_s)
        self._presence = presence
        self._ghosts = ghosts
        self._context = context
        self._registry = registry
        self._occupancy = occupancy
        self.process = secrets.token_hex(8)
        self._clients: dict[bytes, _Client] = {}
        self._away: deque[tuple[int, bytes]] = deque()
        self._came: set[bytes] = set()
        self._gone: set[bytes] = set()
        self._changed: set[str] = set()
        self._failures = 0  # of exchanges, in a row
        self.peers: Peers | None = None
        if registry is not None:
            self.peers = Peers(registry, self.process, clock)
            context.history.others = self.peers.others
            ghosts.on_alive(self._claim)
        if self.needed:
            presence.share(self._changed, None if registry is None else self)

    @property
    def needed(self) -> bool:
        """Whether ``run`` is necessary."""
        return self.peers is not None or self._occupancy is not None

    def gauges(self) -> dict[str, float]:
        if self.peers is None:
            return {"presence_processes": 1, "subscribers": sum(map(self._history.subscribers, self._history))}
        return {"presence_processes": len(self.peers), "subscribers": self.peers.total}

    # Local changes

    def enter(self, connection: Connection) -> None:
        """A named client has subscribed."""
        name = _hash(connection.client, connection.channels)
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = _Client(connection.client, connection.channels)
            self._come(name, client)
        elif client.elsewhere:
            self._come(name, client)
        client.connections += 1
        client.until = 0

    def leave(self, connection: Connection, channels: Sequence[Channel], may_return: bool) -> None:
        name = _hash(connection.client, channels)
        client = self._clients.get(name)
        if client is None:
            return
        client.connections -= 1
        if client.connections:
            return
        if not may_return:
            self._go(name)
            return
        client.until = self._timers.now + self._grace
        self._away.append((client.until, name))
        if len(self._away) > _MAX_AWAY:
            self._forget_away()

    def tick(self) -> None:
        while self._away and self._away[0][0] <= self._timers.now:
            self._forget_away()

    def _forget_away(self) -> None:
        until, name = self._away.popleft()
        client = self._clients.get(name)
        if client is not None and client.until == until and not client.connections:
            self._go(name)

    def _come(self, name: bytes, client: _Client) -> None:
        if client.elsewhere:
            self._move(client, "")
        client.note = _PENDING
        self._came.add(name)
        self._gone.discard(name)

    def _go(self, name: bytes) -> None:
        client = self._clients.pop(name)
        if client.elsewhere:
            self._ghosts.elsewhere.pop(client.group, None)
        self._came.discard(name)
        if client.told:
            self._gone.add(name)

    def _claim(self, group: Group) -> None:
        """The client is alive here, although it has connected to another process later."""
        name = _hash(group[0], tuple(group[1]))
        client = self._clients.get(name)
        if client is not None:
            self._come(name, client)

    # The exchange

    async def run(self) -> None:
        if self._registry is not None:
            await self._registry.open()
        if self._occupancy is not None:
            self._occupancy.start()
        try:
            while True:
                try:
                    await self.exchange()
                    await asyncio.sleep(EXCHANGES_APART_S)
                except Exception:  # counts may be wrong now, but the server must continue
                    logs.log.exception("BUG: presence cannot be exchanged")
                    self._changed.update(self._history.names)
                    await asyncio.sleep(_AFTER_BUG_S)
        finally:
            if self._registry is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S):
                        await self._registry.close(self.process)

    async def exchange(self) -> None:
        """One exchange with the other processes, and the webhooks that follow from it."""
        marks = {} if self._occupancy is None else self._occupancy.settle()
        changed = await self._exchange(marks) if self.peers is not None else self._take_changed()
        if self._occupancy is None:
            return
        if changed is None:
            self._occupancy.failed(marks)
            return
        self._occupancy.saved()
        self._occupancy.look(changed)
        first = not self._context.draining and (self.peers is None or self.peers.first)
        if self._occupancy.may_lead(first=first, alone=self.peers is None):
            try:
                await self._occupancy.lead({} if self._registry is None else await self._registry.marks())
            except StoreError:
                pass  # in the next round

    def _take_changed(self) -> set[str]:
        changed = set(self._changed)
        self._changed.clear()
        return changed

    async def _exchange(self, marks: Mapping[str, str]) -> set[str] | None:
        """Returns the channels whose number of subscribers has changed. None: the registry does not work."""
        assert self.peers is not None
        find, local = self._history.find, self._history.subscribers
        changed, came, gone = self._take_changed(), self._came, self._gone
        self._came, self._gone = set(), set()
        for name in came:
            self._clients[name].told = True
        try:
            news = await self.peers.exchange(Changes({name: local(find(name)) for name in changed}, came, gone, marks))
        except StoreError as error:
            self._changed |= changed
            self._came |= {name for name in came if name in self._clients}
            self._gone |= gone - self._came
            self._failures += 1
            if self._failures == _FAILURES:
                logs.event(Event.PRESENCE_TROUBLE, logging.WARNING, detail=str(error))
            return None
        if self._failures >= _FAILURES:
            logs.event(Event.PRESENCE_WORKS, logging.WARNING)
        self._failures = 0
        for name in came:
            client = self._clients.get(name)
            if client is not None and name not in self._came:
                client.note = news.own
        self._take(news)
        return changed.union(news.changed)

    def _take(self, news: News) -> None:
        for number, process, name in news.came:
            client = self._clients.get(name)
            if client is not None and number > client.note:
                client.note = number
                self._move(client, process)
        for process, name in news.gone:
            client = self._clients.get(name)
            if client is not None and client.elsewhere == process:
                self._come(name, client)
        if news.ended:
            self._bring_back(news.ended)

    def _bring_back(self, processes: Collection[str]) -> None:
        for group in list(self._ghosts.elsewhere):
            name = _hash(group[0], tuple(group[1]))
            client = self._clients.get(name)
            if client is not None and client.elsewhere in processes:
                self._come(name, client)

    def _move(self, client: _Client, process: str) -> None:
        if client.elsewhere == process:
            return
        if bool(client.elsewhere) != bool(process):
            self._presence.move(client.client, client.channels, elsewhere=bool(process))
        client.elsewhere = process
        if process:
            self._ghosts.watch_elsewhere(client.group)
        else:
            self._ghosts.elsewhere.pop(client.group, None)


def _hash(client: str, channels: Sequence[Channel]) -> bytes:
    """The name of a client with exactly these channels, for other processes."""
    names = channels[0].name if len(channels) == 1 else ",".join(sorted([channel.name for channel in channels]))
    return blake2b(f"{client} {names}".encode(), digest_size=8).digest()
