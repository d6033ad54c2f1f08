"""Follows the log, across lost connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec

from ..base import Lost, News
from .entries import Broken, Place, messages, nonce_of, place_of, read
from .link import AWAY, Command, Link, NotUsable, Server, State, state_from
from .problems import Problems
from .snapshot import Damaged, load

_BLOCK_MS = 1000
_READ_S = 3.0  # for a reply that may come _BLOCK_MS late
_ENTRIES_AT_ONCE = 500
_CHECK_S = 1.0
_PAUSE_S = (0.05, 1.0)
_PART = "following"


class Follower:
    """Reads the log, and calls ``look`` with its state about once a second."""

    def __init__(
        self, server: Server, problems: Problems, look: Callable[[State], None], epoch: str, news: News
    ) -> None:
        self._server = server
        self._keys = server.keys
        self._problems = problems
        self._look = look
        self._epoch = epoch
        self._news = news

    async def run(self, after: int, place: Place | None) -> None:
        """Reads from ``after`` on until it is cancelled. Raises Lost. ``place``: that of ``after``, if known."""
        pause_s, most_s = _PAUSE_S
        while True:
            link: Link | None = None
            try:
                link = await self._server.connect()
                if place is None:
                    place = await self._find(link, after)
                while True:
                    await self._check(link, place)
                    self._problems.clear(_PART)
                    pause_s = _PAUSE_S[0]
                    checked = asyncio.get_running_loop().time()
                    idle = False
                    while not idle and asyncio.get_running_loop().time() < checked + _CHECK_S:
                        before = place
                        place = await self._read(link, place)
                        idle = place is before
            except (*AWAY, msgspec.DecodeError) as error:
                self._problems.note(_PART, error)
            finally:
                if link is not None:
                    await link.close()
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(most_s, pause_s * 2)

    async def _read(self, link: Link, place: Place) -> Place:
        """Reads the next entries, or waits for some. Returns the new place, or the same if there were none."""
        (reply,) = await link.call(
            ("XREAD", "COUNT", _ENTRIES_AT_ONCE, "BLOCK", _BLOCK_MS, "STREAMS", self._keys.log, place.id),
            timeout_s=_READ_S,
        )
        if reply is None:
            return place
        try:
            page = read(reply[0][1], place)
        except Broken:
            (state,) = await self._ask(link)
            await self._lose(link, place, state)
        if page.epochs:
            raise Lost
        self._news(messages(page))
        return page.place

    async def _ask(self, link: Link, *commands: Command) -> list[Any]:
        """The state after the commands, and their replies. Raises Lost if the epoch has changed.

        The state is read last: an entry that is missing in a reply because it was trimmed is in the snapshot of that
        state. (A transaction is not possible: a server that is out of memory refuses to queue commands.)
        """
        *replies, fields = await link.call(*commands, self._keys.read_state)
        state = state_from(fields)
        if not state.epoch:
            await link.renew(self._keys, "", "the log has been deleted")
        if state.epoch != self._epoch:
            raise Lost
        return [state, *replies]

    async def _check(self, link: Link, place: Place) -> None:
        """Checks that the log still has the last entry that was read: it may have been flushed or overwritten."""
        state, replication, entries = await self._ask(
            link, ("INFO", "replication"), ("XRANGE", self._keys.log, place.id, place.id)
        )
        if not link.is_same(replication):
            raise NotUsable("the server became a replica, or has a new replication ID")
        if entries:
            is_there = nonce_of(entries[0]) == place.nonce
        elif place.id == state.snapshot:
            is_there = place.nonce == state.snapshot_nonce
        else:
            is_there = place.order < state.base.order
        if not is_there:
            await self._lose(link, place, state)
        self._look(state)

    async def _lose(self, link: Link, place: Place, state: State) -> None:
        """Raises Lost. Starts a new epoch first, unless the entries after ``place`` were only trimmed."""
        if place.order >= state.base.order:
            await link.renew(self._keys, self._epoch, "the server has other entries than before")
        raise Lost

    async def _find(self, link: Link, after: int) -> Place:
        """The place of ``after``. Messages that are only in the snapshot are passed to ``news``."""
        of_number = f"{after}-{2**64 - 1}", f"{after}-0"
        state, entries = await self._ask(link, ("XREVRANGE", self._keys.log, *of_number, "COUNT", 1))
        if entries:
            return place_of(entries[0])
        base: Place = state.base
        if after == base.sequence:
            return base
        if after > state.head:
            await self._lose(link, Place(b"%d-0" % after, b""), state)
        try:
            log = await load(link, self._keys)
        except Damaged:
            raise Lost from None
        if log.state.epoch != self._epoch or after < log.head.evicted:
            raise Lost
        missed = log.messages(after)
        if missed:
            self._news(missed)
        return log.place
