"""The ends of requests: an answer or a refusal goes out, and the connection waits for its next request or ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from .. import logs, policy
from ..errors import Refused, UpgradeRequired
from ..limits import Limits
from ..metrics import Metrics
from ..wire import http, websocket
from ..wire.http import Headers, Request
from .clock import NEVER, Wheel
from .connection import Connection, State
from .sockets import Sockets

# Looked up once: a poll's answer passes here, and an Enum's member costs as much as a call.
_HEAD, _CLOSING, _GONE = State.HEAD, State.CLOSING, State.GONE


class Answering:
    def __init__(
        self,
        sockets: Sockets,
        wheel: Wheel[Connection],
        limits: Limits,
        metrics: Metrics,
        origins: Sequence[str],
        schedule: Callable[[], None],
    ) -> None:
        self._sockets = sockets
        self._wheel = wheel
        self._limits = limits
        self._grace = int(limits.poll_grace_s)
        self._idle = int(limits.idle_s)
        self._metrics = metrics
        self._origins = origins
        self._schedule = schedule
        self.early: deque[Connection] = deque()  # with bytes of a next request that came before the last answer

    def answer(self, connection: Connection, request: Request, document: bytes) -> None:
        """Answers in the next turn, together with others."""
        keep_alive = request.keep_alive
        extra = policy.cors(request, self._origins) if self._origins else b""
        self._sockets.cork(connection, http.document(document, keep_alive=keep_alive, extra=extra))
        self._schedule()
        self.answered(connection, keep_alive)

    def answer_empty(self, connection: Connection, request: Request, status: int, headers: Headers) -> None:
        """An answer without a body, where the status or the method says that there is none."""
        extra = policy.cors(request, self._origins)
        keep_alive = request.can_be_followed
        line = ("Connection", "keep-alive" if keep_alive else "close")
        self._sockets.offer(connection, http.head(status, [*headers, line], extra))
        self.answered(connection, keep_alive)

    def refuse(self, connection: Connection, request: Request | None, refused: Refused) -> None:
        """Answers with a problem document. No request: what came can not be read, so neither can what follows it."""
        self._count(refused, request)
        if request is not None and _is_handshake(request, refused):
            self._refuse_websocket(connection, request, refused)
            return
        keep_alive = request is not None and request.can_be_followed
        extra = b"" if request is None else policy.cors(request, self._origins)
        document = http.problem(refused, keep_alive=keep_alive, extra=extra)
        if request is not None and request.method == "HEAD":
            document = document[: document.index(http.HEAD_END) + len(http.HEAD_END)]
        self._sockets.offer(connection, document)
        self.answered(connection, keep_alive)

    def answered(self, connection: Connection, keep_alive: bool) -> None:
        """Nothing of the request is left to be said."""
        state = connection.state
        if state is _CLOSING or state is _GONE:
            return
        connection.request = None
        connection.ends_at = NEVER
        if not keep_alive:
            self._sockets.end(connection, "answered")
            return
        if state is not _HEAD:
            connection.move(_HEAD)
        deadline = self._wheel.now + (self._grace if connection.channels else self._idle)
        if deadline < connection.bucket:
            self._wheel.set(connection, deadline)
        else:
            connection.deadline = deadline  # what ``set`` would do
        if connection.inbox:
            self.early.append(connection)
            self._schedule()
        elif self._sockets.paused:
            self._sockets.resume(connection)

    def _refuse_websocket(self, connection: Connection, request: Request, refused: Refused) -> None:
        """Accepts, then closes with a code that says why: a page can not see the status of a refused handshake."""
        connection.input = websocket.Input(self._limits.websocket_message_bytes)
        connection.input.close(refused.close_code, refused.detail.encode()[:120].decode(errors="ignore"))
        self._sockets.offer(connection, websocket.handshake(request) + connection.input.replies())
        self._sockets.end(connection, f"refused {int(refused.status)}")

    def _count(self, refused: Refused, request: Request | None) -> None:
        self._metrics.refused[refused.reason, int(refused.status)] += 1
        if isinstance(refused, UpgradeRequired):
            self._metrics.stripped_upgrades += 1
        if logs.enabled():
            path = None if request is None else request.path[:200]
            logs.event("refused", status=int(refused.status), path=path, detail=refused.detail)


def _is_handshake(request: Request, refused: Refused) -> bool:
    """Whether this is a WebSocket handshake in order, but for what it is refused for."""
    try:
        return policy.transport(request) == "websocket" and bool(websocket.handshake(request))
    except Refused:
        return False
