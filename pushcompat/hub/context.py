"""The context that all parts of the hub share: limits, metrics, access, timers, sockets, history, and the next turn."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable

from ..access.access import Access
from ..access.policy import Policy
from ..access.proxies import Proxies
from ..limits import Limits
from ..metrics import Metrics
from .connection import Connection
from .history import History
from .peers import Peers
from .selector import LoopSelector
from .sockets import Sockets
from .timers import TimerWheel

_RETRY_MS = (500, 3000)  # random, so that many clients do not reconnect at once
_RETRY_AT_SUCCESSOR_MS = (50, 300)  # the successor already accepts; the drain has spread the clients
_RETRY_AFTER_STOP_MS = (2000, 5000)  # longer than a usual restart


class Context:
    """``prefix``: the path that /channels is under. ``selector``: the event loop's, if it is a ``LoopSelector``."""

    def __init__(
        self,
        limits: Limits,
        metrics: Metrics,
        access: Access | None = None,
        prefix: str = "",
        selector: LoopSelector | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self.limits = limits
        self.access = access or Access(Policy())
        self.base = f"{prefix}/channels"
        self.metrics = metrics
        self.timers: TimerWheel[Connection] = TimerWheel(int(time.monotonic()))
        self.sockets = Sockets(self.timers, limits, selector)
        self.peers = Peers(limits, proxies or Proxies())
        self.history = History(limits.retention, limits.refetch_rate)
        self.history.follow_rules(self.access.rules)
        self.pipelined: deque[Connection] = deque()  # connections with pipelined input
        self.draining = False
        self.replaced = False  # another process already accepts: clients need not wait for it
        self._in_turn = False  # work scheduled now is done before the turn ends
        self._turn: Callable[[], bool] | None = None
        self._next_turn: asyncio.Handle | None = None

    # Turns

    def start(self, turn: Callable[[], bool]) -> None:
        """``turn`` is called when sockets are ready or work is scheduled; it returns whether work is left."""
        self._turn = turn
        self.sockets.start(self._on_ready)

    @property
    def turn_scheduled(self) -> bool:
        return self._next_turn is not None

    def schedule_turn(self) -> None:
        if self._next_turn is None and not self._in_turn:
            self._next_turn = asyncio.get_running_loop().call_soon(self._scheduled_turn)

    def stop(self) -> None:
        if self._next_turn is not None:
            self._next_turn.cancel()

    def _scheduled_turn(self) -> None:
        self._next_turn = None
        self._run()

    def _on_ready(self) -> None:
        if self._next_turn is None:
            self._run()

    def _run(self) -> None:
        assert self._turn is not None
        self._in_turn = True
        try:
            more = self._turn()
        finally:
            self._in_turn = False
        if more:
            self.schedule_turn()

    # Reconnect delays

    def retry_ms(self) -> int:
        """The delay before the client of an ended stream should reconnect."""
        if self.replaced:
            shortest, longest = _RETRY_AT_SUCCESSOR_MS
        else:
            shortest, longest = _RETRY_AFTER_STOP_MS if self.draining else _RETRY_MS
        return int(random.uniform(shortest, longest))  # three times as fast as randint
