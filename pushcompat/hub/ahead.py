"""Subscribers whose cursor is ahead of this process: another process was faster, or the log has lost its tail.

The store's head shows which. One request covers all of them, once for each. A subscriber that is ahead of the store's
head too would wait forever: it gets a ``reset``.
"""

from __future__ import annotations

import asyncio

from ..store.base import Store, StoreError
from .connection import Connection
from .context import Context
from .fanout import Fanout
from .history import UNKNOWN_POSITION

_RETRY_S = 1.0


class Ahead:
    def __init__(self, context: Context, store: Store, fanout: Fanout) -> None:
        self._history = context.history
        self._schedule_turn = context.schedule_turn
        self._store = store
        self._fanout = fanout
        self._cursors: dict[Connection, int] = {}  # of connections that were not compared with the head yet
        self._added = asyncio.Event()

    def add(self, connection: Connection) -> None:
        self._cursors[connection] = connection.cursor
        self._added.set()

    async def run(self) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            asked, self._cursors = self._cursors, {}
            try:
                epoch, head = await self._store.head()
            except StoreError:
                self._cursors = asked | self._cursors
                self._added.set()
                await asyncio.sleep(_RETRY_S)
                continue
            if epoch != self._history.epoch:
                continue  # the log will be reloaded, and all subscribers get a reset
            for connection, cursor in asked.items():
                if connection.cursor == cursor > head:
                    connection.start_at(UNKNOWN_POSITION)
                    self._fanout.catch_up(connection)
            self._schedule_turn()
