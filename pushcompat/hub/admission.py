"""Subscribe requests that cannot be admitted at once wait here, in the state ADMITTING: until the signature of their
token is verified, until the application has answered.

Verifying costs up to 0.5 ms (ES512), for a wrong token too, so it must not take the loop from others. It happens once a
turn, after the turn's reads, for at most ``_TURN_S``, and takes at most ``verify_share`` of the time by the clock. The
rest waits in two queues. Requests from an address that has just sent a wrong token are in the second one, which is
served when the first is empty: who sends wrong tokens all the time delays itself. The queues are bounded in number, and
in time by the connection's timer; beyond that the answer is 503.

Who has subscribed already does not come here: a client's next poll, and a token that was verified before, are decided
at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ..errors import RequestError, Unauthorized, Unavailable
from ..wire.request import Request
from .connection import Connection, State
from .context import Context
from .responses import Responses

_TURN_S = 0.002  # of one turn; a turn ends after 5 ms
_SAVED_S = 0.05  # how much unused time is saved for a wave of reconnections
_LARGEST_HEADS = 2000  # that may wait; of usual requests several times as many, which is a wave of reconnections
_REQUEST_BYTES = 4096  # of a request, besides its head
_MOST_LATER = 1000
_WAIT_S = 5  # clients give a connection 10 s
_SUSPECTED_S = 10  # how long after a wrong token
_MOST_SUSPECTED = 4096
_RETRY_S = 5
_BUSY = "the server is busy with verifying tokens; try again later"
_LATE = "the application has not answered in time; try again later"

Start = Callable[[Connection, Request, Sequence[str], bytes], None]
_ADMITTING, _READING_HEAD = State.ADMITTING, State.READING_HEAD


class Waiting:
    """A request that waits to be admitted. ``head``: its bytes."""

    __slots__ = ("_admission", "asks", "connection", "head", "names", "request")

    def __init__(
        self, admission: Admission, connection: Connection, request: Request, names: Sequence[str], head: bytes
    ) -> None:
        self._admission = admission
        self.connection = connection
        self.request = request
        self.names = names
        self.head = head
        self.asks = False  # the application was asked

    @property
    def waits(self) -> bool:
        return self._admission.waits(self)

    def answered(self, refused: RequestError | None) -> None:
        """The application has answered, or could not be asked."""
        self._admission.answered(self, refused)


class Admission:
    """``on_admitted`` sets what starts an admitted request; its connection is in the state READING_HEAD."""

    def __init__(self, context: Context, responses: Responses, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._access = context.access
        self._sockets = context.sockets
        self._timers = context.timers
        self._metrics = context.metrics
        self._responses = responses
        self._clock = clock
        self._share = context.limits.verify_share
        self._answer_s = _WAIT_S + int(context.limits.authorize_s) + 1
        self._most_bytes = _LARGEST_HEADS * context.limits.head_bytes
        self._bytes = 0  # of the requests that wait
        self._all: dict[Connection, Waiting] = {}
        self._queue: OrderedDict[Connection, Waiting] = OrderedDict()
        self._later: OrderedDict[Connection, Waiting] = OrderedDict()
        self._suspects: OrderedDict[str, int] = OrderedDict()  # addresses, with the tick until which they are
        self._saved_s = _SAVED_S
        self._saved_at = clock()
        self._alarm: asyncio.TimerHandle | None = None
        context.sockets.on_end(self._ended)

    def on_admitted(self, start: Start) -> None:
        self._start = start

    def __len__(self) -> int:
        return len(self._all)

    # Requests

    def wait(self, connection: Connection, request: Request, names: Sequence[str], head: bytes) -> None:
        """Admits the request, or refuses it, as soon as that can be decided. Raises Unavailable."""
        waiting = Waiting(self, connection, request, names, head)
        if self._bytes >= self._most_bytes:
            raise self._is_busy()
        if self._access.is_verified(request, names):
            self._ask(waiting)
            self._begin(waiting, self._answer_s)
            return
        queue = self._later if self._is_suspect(connection) else self._queue
        if len(self._later) >= _MOST_LATER and queue is self._later:
            raise self._is_busy()
        queue[connection] = waiting
        self._begin(waiting, _WAIT_S)

    def _is_busy(self) -> Unavailable:
        self._metrics.limited["verification"] += 1
        return Unavailable(_BUSY, _RETRY_S)

    def _begin(self, waiting: Waiting, wait_s: int) -> None:
        connection = waiting.connection
        self._all[connection] = waiting
        self._bytes += len(waiting.head) + _REQUEST_BYTES
        connection.move(_ADMITTING)
        self._timers.set(connection, self._timers.now + wait_s)

    def waits(self, waiting: Waiting) -> bool:
        return self._all.get(waiting.connection) is waiting

    def _ended(self, connection: Connection, _reason: object) -> None:
        self._forget(connection)

    def _forget(self, connection: Connection) -> bool:
        """Whether it waited."""
        waiting = self._all.pop(connection, None)
        if waiting is None:
            return False
        self._bytes -= len(waiting.head) + _REQUEST_BYTES
        self._queue.pop(connection, None)
        self._later.pop(connection, None)
        return True

    def on_timer(self, connection: Connection) -> None:
        waiting = self._all[connection]
        self._refuse(waiting, Unavailable(_LATE, _RETRY_S) if waiting.asks else self._is_busy())

    # Verifying

    @property
    def ready(self) -> bool:
        """There is a signature to verify, and time for it."""
        return self._alarm is None and bool(self._queue or self._later)

    def run(self) -> None:
        """Verifies what waits, for as long as this turn may."""
        now = self._clock()
        self._saved_s = min(_SAVED_S, self._saved_s + (now - self._saved_at) * self._share)
        self._saved_at = now
        until = now + _TURN_S  # also for refusals: a thousand of them would take 100 ms
        while self._saved_s > 0 and self._clock() < until:
            waiting = self._next()
            if waiting is not None:
                self._saved_s -= self._serve(waiting)
            elif not self._queue:
                return
        if self._saved_s <= 0 and (self._queue or self._later):
            wait_s = (_TURN_S - self._saved_s) / self._share
            self._alarm = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _next(self) -> Waiting | None:
        """None: there is none, or it was refused."""
        while self._queue:
            connection, waiting = self._queue.popitem(last=False)
            if not self._is_suspect(connection):
                return waiting
            if len(self._later) >= _MOST_LATER:
                self._refuse(waiting, self._is_busy())
                return None
            self._later[connection] = waiting
        return self._later.popitem(last=False)[1] if self._later else None

    def _wake(self) -> None:
        self._alarm = None
        self._context.schedule_turn()

    def _serve(self, waiting: Waiting) -> float:
        """Verifies the token, and decides. Returns the seconds that verifying took."""
        began, spent = self._clock(), 0.0
        try:
            refused = self._verify(waiting)
            spent = self._clock() - began
            if isinstance(refused, Unauthorized):
                self._suspect(waiting.connection)
            self._decide(waiting, refused)
        except Exception:
            self._sockets.log_bug_and_abort(waiting.connection)
        self._metrics.verifications += 1
        self._metrics.verification_seconds += spent
        return spent

    def _verify(self, waiting: Waiting) -> RequestError | None:
        try:
            self._access.verify(waiting.request, waiting.names)
        except RequestError as refused:
            return refused
        return None

    # The application

    def answered(self, waiting: Waiting, refused: RequestError | None) -> None:
        try:
            self._decide(waiting, refused)
        except Exception:
            self._sockets.log_bug_and_abort(waiting.connection)
        self._context.schedule_turn()

    # Decisions

    def _decide(self, waiting: Waiting, refused: RequestError | None) -> None:
        connection, request = waiting.connection, waiting.request
        try:
            if refused is not None:
                raise refused
            grant = self._access.admit(request, waiting.names)
            if grant is None:
                self._ask(waiting)
                self._timers.set(connection, self._timers.now + self._answer_s)
                return
            self._leave(waiting)
            connection.grant = grant
            self._start(connection, request, waiting.names, waiting.head)
        except RequestError as error:
            self._refuse(waiting, error)

    def _ask(self, waiting: Waiting) -> None:
        if waiting.asks:
            raise Unavailable("the application's answer was not kept; try again", _RETRY_S)
        waiting.asks = True
        try:
            self._access.ask(waiting.request, waiting.names, waiting)
        except Unavailable:
            self._metrics.limited["questions"] += 1
            raise

    def _refuse(self, waiting: Waiting, refused: RequestError) -> None:
        self._leave(waiting)
        self._responses.refuse(waiting.connection, waiting.request, refused)

    def _leave(self, waiting: Waiting) -> None:
        """The connection waits no longer."""
        connection = waiting.connection
        if self._forget(connection):
            connection.move(_READING_HEAD)
            self._sockets.resume(connection)

    # Addresses

    def _is_suspect(self, connection: Connection) -> bool:
        until = self._suspects.get(connection.peer.key, 0) if self._suspects else 0
        return until > self._timers.now

    def _suspect(self, connection: Connection) -> None:
        address = connection.peer.key
        self._suspects.pop(address, None)
        if len(self._suspects) >= _MOST_SUSPECTED:
            self._suspects.popitem(last=False)
        self._suspects[address] = self._timers.now + _SUSPECTED_S
