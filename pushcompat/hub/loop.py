"""The turn of the hub's loop: reads, timers and sends, and their time limit.

One thread, and nothing here blocks. A turn

    1. continues pipelined requests whose earlier responses were sent;
    2. reads sockets that are ready, a slice at a time, handles their input, and appends publishes to the log, which
       marks channels dirty and answers the publishers;
    3. continues TLS handshakes, and verifies the tokens of new subscribers;
    4. handles expired timers;
    5. sends what 1 to 4 wrote;
    6. visits subscribers of dirty channels;

each limited by count and by time, and then yields to the rest of the process. So neither a publish to 15,000
subscribers (150 ms of work) nor requests that are expensive to answer block other tasks. If work is left, the next turn
is scheduled immediately; otherwise the poller or the timers start it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from .admission import Admission
from .connection import Connection, State
from .context import Context
from .fanout import Fanout
from .publishing import Publishing
from .timers import NEVER

_CLOSED = State.CLOSED
_TURN_S = 0.005  # after this time a turn yields to other tasks
# A handshake takes 0.4 ms (P-256) to 0.9 ms (RSA), twenty times as much as the hub's own work for a new connection.
# So their number is not limited, but their time.
_HANDSHAKES_S = 0.002

Receive = Callable[[Connection, bytes], None]
Act = Callable[[Connection], None]


class Loop:
    """``receive`` and ``on_timer`` have, for each state except CLOSED, the handler of input and of an expired timer;
    a connection in HANDSHAKING has no input.
    ``resume`` continues a pipelined request, ``handshake`` a TLS handshake.
    """

    def __init__(
        self,
        context: Context,
        receive: Mapping[State, Receive],
        on_timer: Mapping[State, Act],
        resume: Act,
        handshake: Act,
        publishing: Publishing,
        admission: Admission,
        fanout: Fanout,
    ) -> None:
        assert set(on_timer) == set(State) - {_CLOSED}, "every state has its row"
        assert set(receive) == set(on_timer) - {State.HANDSHAKING}, "every state has its row"
        self._context = context
        self._sockets = context.sockets
        self._pipelined = context.pipelined
        self._visits = context.limits.max_visits
        # What another connection sent in the same turn may have closed it, after its input was read
        self._receive = {**receive, _CLOSED: _discard}
        self._on_timer = on_timer
        self._resume = resume
        self._handshake = handshake
        self._publishing = publishing
        self._admission = admission
        self._fanout = fanout
        self._due: deque[Connection] = deque()

    def start(self) -> None:
        self._context.start(self.turn)

    def tick(self, now: int) -> None:
        """A second has passed: the timers up to ``now`` have expired."""
        self._due.extend(self._context.timers.advance(now))
        self._sockets.tick()
        self._context.schedule_turn()

    def turn(self) -> bool:
        """Returns whether work is left."""
        until = time.monotonic() + _TURN_S
        if self._pipelined:
            self._continue_pipelined(until)
        if self._publishing.queue:
            self._publishing.commit()  # before more is read from these publishers
        # During a pass fewer sockets are read: delivery has priority over new publishes.
        self._read(max(1, self._visits // 4) if self._fanout.busy else self._visits, until)
        if self._sockets.handshaking:
            self._continue_handshakes(until)
        if self._admission.ready:
            self._admission.run()
        if self._due:
            self._serve_timers(until)
        self._sockets.flush_writes()
        if self._fanout.active:
            self._fanout.run(self._visits, until)
        sockets = self._sockets
        left = sockets.readable or sockets.handshaking or sockets.writes_pending or self._pipelined or self._due
        return bool(
            left or self._admission.ready or self._fanout.busy or (self._publishing.queue and self._publishing.ready)
        )

    def _read(self, limit: int, until: float) -> None:
        receive = self._receive
        while limit > 0:
            received = self._sockets.read()
            for connection, data in received:
                try:
                    receive[connection.state](connection, data)
                except Exception:
                    self._sockets.log_bug_and_abort(connection)
            if self._publishing.queue:
                self._publishing.commit()
            limit -= len(received)
            if not self._sockets.readable or time.monotonic() > until:
                return

    def _continue_pipelined(self, until: float) -> None:
        for _ in range(len(self._pipelined)):
            connection = self._pipelined.popleft()
            if connection.state is State.READING_HEAD and connection.unsent is None:
                self._do(self._resume, connection)
            if time.monotonic() > until:
                return

    def _continue_handshakes(self, until: float) -> None:
        until = min(until, time.monotonic() + _HANDSHAKES_S)
        waiting = self._sockets.handshaking
        while waiting:
            connection = waiting.popleft()
            if connection.state is not State.HANDSHAKING:
                continue
            self._do(self._handshake, connection)
            if time.monotonic() > until:
                return

    def _serve_timers(self, until: float) -> None:
        for _ in range(min(len(self._due), self._visits)):
            connection = self._due.popleft()
            if connection.state is not _CLOSED and connection.deadline == NEVER:  # otherwise it was postponed
                self._do(self._on_timer[connection.state], connection)
            if time.monotonic() > until:
                return

    def _do(self, act: Act, connection: Connection) -> None:
        try:
            act(connection)
        except Exception:
            self._sockets.log_bug_and_abort(connection)


def _discard(connection: Connection, data: bytes) -> None:
    pass
