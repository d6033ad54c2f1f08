"""The hub: its parts put together, and the turn of its loop.

    Door         accepts, waits for request heads          ─┐
    Subscribing  a request becomes a cursor over the log    ├─ act on ─► Sockets, Wheel
    Publishing   a request becomes messages in the log      │
    Fanout       sends what lies after each cursor         ─┘
    History      the retained window that cursors point into

One thread, one rule: nothing here waits. A turn reads from at most ``visits`` sockets and acts upon what it read,
serves at most as many deadlines, sends what both have corked, makes at most as many deliveries, and then lets the rest
of the process run, so that an update to 15,000 subscribers blocks nobody for 150 ms. When something is left to do the
next turn is scheduled at once; otherwise the selector or the clock starts it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tornado.ioloop import IOLoop

from .. import logs
from ..limits import Limits
from ..message import Message
from ..metrics import Metrics
from ..store.base import Lost, Store
from ..wire import http
from .answering import Answering
from .clock import NEVER, Wheel
from .connection import Connection, State
from .door import Door
from .fanout import Fanout
from .history import History
from .poller import HANGUP
from .publishing import Publishing
from .requests import HandOver, Requests
from .sockets import BLOCKED, BODY_BYTES, READ_BYTES, Sockets
from .subscribing import Subscribing

_CROWD_PER_S = 200  # subscribers that may be told to come back within a second without being a crowd
_TURN_S = 0.01
_HEAD, _GONE = State.HEAD, State.GONE


@dataclass(frozen=True, slots=True)
class Settings:
    """What the hub is told: who may publish, which origins may look in, where its channels are, and its limits."""

    limits: Limits
    publish_keys: Collection[bytes]
    cors_origins: Sequence[str] = ()
    prefix: str = ""


class Hub:
    """``hand_over(socket, address, received)`` gets every connection whose request is not for the hub."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics, hand_over: HandOver) -> None:
        limits = settings.limits
        origins = settings.cors_origins
        self._store = store
        self._limits = limits
        self._metrics = metrics
        wheel: Wheel[Connection] = Wheel(int(time.monotonic()))
        self._wheel = wheel
        self.history = History(limits.retention, time.monotonic)
        self.sockets = Sockets(wheel, limits.goodbye_s, self._ended)
        self._answering = Answering(self.sockets, wheel, limits, metrics, origins, self.schedule)
        self._fanout = Fanout(self.sockets, self.history, wheel, limits, metrics, self._answering.answered)
        self._subscribing = Subscribing(
            self.sockets, self.history, self._fanout, self._answering, wheel, limits, metrics, origins
        )
        self._publishing = Publishing(store, self.history, self._fanout, wheel, self._answering, limits, metrics)
        self._requests = Requests(
            self.sockets, wheel, limits, self._answering, self._subscribing, self._publishing,
            settings.publish_keys, origins, settings.prefix, hand_over,
        )  # fmt: skip
        self.door = Door(self.sockets, wheel, limits, metrics, self._requests.route, self._answering.refuse)
        self._next_turn: asyncio.Handle | None = None
        self._again: dict[Connection, int] = {}  # to be read once more without being reported, and their events
        self._buffer = memoryview(bytearray(BODY_BYTES))
        self._due: deque[Connection] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()  # the hub can not go on
        self._receive = {
            State.HEAD: self.door.receive,
            State.BODY: self._requests.receive_body,
            State.PUBLISHING: self._receive_early,
            State.POLLING: self._receive_early,
            State.STREAMING: self._subscribing.receive,
            State.CLOSING: self._receive_last,
        }
        self._fire = {
            State.HEAD: self._nothing_came,
            State.BODY: self._requests.body_is_late,
            State.PUBLISHING: self._publishing.give_up,
            State.POLLING: self._subscribing.window_ends,
            State.STREAMING: self._subscribing.beat,
            State.CLOSING: self._goodbye_is_late,
        }

    # Life

    async def start(self) -> None:
        """Loads what the log has retained and follows it from there."""
        http.set_date(time.time())
        await self._load()
        self._fanout.epoch = self._store.epoch
        IOLoop.current().add_handler(self.sockets.fileno(), lambda _fd, _events: self._on_ready(), IOLoop.READ)
        self._tasks = [asyncio.create_task(work()) for work in (self._follow, self._tick, self._publishing.run)]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Without one of its tasks the hub is no hub: whoever runs it must end it."""
        if not task.cancelled():
            logs.log.critical("a defect of the hub: a task ended", exc_info=task.exception())
            self.failed.set()

    async def drain(self) -> None:
        """Tells every subscriber to come back elsewhere or later, spread over the drain time.

        New subscribers are let in and told the same at once; publishing goes on.
        """
        self._subscribing.draining = True
        subscribers = [c for c in self.sockets.connections() if c.state in (State.STREAMING, State.POLLING)]
        random.shuffle(subscribers)
        # With few subscribers there is no crowd to spread.
        spread_s = min(self._limits.drain_s, len(subscribers) / _CROWD_PER_S)
        begun = time.monotonic()
        for index, connection in enumerate(subscribers):
            ahead_s = begun + spread_s * index / len(subscribers) - time.monotonic()
            if ahead_s > _TURN_S:
                await asyncio.sleep(ahead_s)
            self._subscribing.rotate(connection, "stopping", self._subscribing.retry_ms())
        deadline = time.monotonic() + min(1.0, self._limits.drain_s)
        while time.monotonic() < deadline and (self._publishing.busy or self._saying_goodbye()):
            await asyncio.sleep(_TURN_S)

    def _saying_goodbye(self) -> bool:
        return any(c.state is State.CLOSING or c.rest is not None for c in self.sockets.connections())

    @property
    def draining(self) -> bool:
        return self._subscribing.draining

    @property
    def subscribers(self) -> int:
        return self._metrics.connections.total()

    def gauges(self) -> list[tuple[str, str, float]]:
        """What there is now: (name, meaning, value)."""
        history = self.history
        return [
            ("sockets", "Connections that the hub holds, whatever they are doing", len(self.sockets)),
            ("channels", "Channels that are known: with messages, subscribers, or a floor", len(history)),
            ("log_messages", "Messages that are retained", history.count),
            ("log_bytes", "Memory that the retained messages count as", history.bytes),
            ("log_head", "Sequence number of the last message", history.head),
            ("draining", "1 while the server is on its way out", float(self.draining)),
        ]

    def take_back(self, sock: socket.socket, received: bytes) -> None:
        """A connection that was handed over and is answered. ``received``: the bytes behind the request, maybe none."""
        connection = Connection(sock, self._wheel.now)
        self.sockets.watch(connection)
        self._wheel.set(connection, self._wheel.now + int(self._limits.idle_s))
        if received:
            self.door.receive(connection, received)
        self.schedule()  # this is no turn: what it left to do would wait for the next one

    async def close(self) -> None:
        """Closes everything."""
        self.door.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        IOLoop.current().remove_handler(self.sockets.fileno())
        self.sockets.close()
        if self._next_turn is not None:
            self._next_turn.cancel()

    # The log

    async def _load(self) -> None:
        self.history.load(await self._store.retained(), time.time())

    async def _follow(self) -> None:
        while True:
            try:
                async for batch in self._store.follow(self.history.head):
                    self._apply(batch)
            except Lost:
                await self._start_over()

    def _apply(self, batch: Sequence[Message]) -> None:
        self._metrics.messages += len(batch)
        changed = {self.history.append(message): None for message in batch}
        for channel in changed:
            self._fanout.mark(channel)
        self.history.shrink()
        self._publishing.settle()
        self.schedule()

    async def _start_over(self) -> None:
        """The log lost something, or is another one: whoever may have missed something is told ``reset``."""
        logs.event("log lost", level=logging.WARNING, epoch=self._store.epoch)
        await self._load()
        if self._store.epoch != self._fanout.epoch:
            self._fanout.epoch = self._store.epoch
            self._subscribing.start_over()
        for channel in list(self.history):
            self._fanout.mark(channel)
        self._publishing.settle()
        self.schedule()

    async def _tick(self) -> None:
        """Once a second: what is due, and what is too old."""
        while True:
            await asyncio.sleep(1.0 - time.monotonic() % 1.0)
            http.set_date(time.time())
            self._due.extend(self._wheel.advance(int(time.monotonic())))
            self._subscribing.tick()
            self.history.expire()
            self.schedule()

    # Turns

    def schedule(self) -> None:
        if self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_soon(self._turn)

    def _on_ready(self) -> None:
        if self._next_turn is None:
            self._turn()

    def _turn(self) -> None:
        self._next_turn = None
        most = self._limits.visits
        # While a pass is under way its visits come first: who was visited asks for nothing that is late.
        more = self._read(max(1, most // 4) if self._fanout.busy else most)
        early = self._answering.early
        for _ in range(min(len(early), most)):
            self._do(self._resume, early.popleft())
        for _ in range(min(len(self._due), most)):
            connection = self._due.popleft()
            if connection.state is not State.GONE and connection.deadline == NEVER:  # else it got more time meanwhile
                self._do(self._fire[connection.state], connection)
        for connection in self.sockets.uncork():
            self._do(self._flushed, connection)
        self._fanout.run(most)
        if more or early or self._due or self._fanout.busy:
            self.schedule()

    def _read(self, most: int) -> bool:
        """Serves that many sockets that are ready. True where there may be more."""
        again, self._again = self._again, {}
        self._serve([item for item in again.items() if item[0] not in self.sockets.paused])
        ready = self.sockets.ready(most)
        self._serve(ready)
        return bool(self._again) or len(ready) >= most

    def _serve(self, ready: Sequence[tuple[Connection, int]]) -> None:
        """Reads them all, then acts upon what was read: a system call leaves the processor's caches to the next one."""
        receive, repeat = self._receive, self._subscribing.repeat
        for connection, data in self._received(ready):
            state = connection.state
            try:
                if (
                    state is _HEAD
                    and connection.repeat is not None
                    and not connection.inbox
                    and repeat(connection, data)
                ):
                    continue
                receive[state](connection, data)
            except Exception:
                self.sockets.defect(connection)

    def _received(self, ready: Sequence[tuple[Connection, int]]) -> list[tuple[Connection, bytes]]:
        """What came in from those who had something to say; the others are seen to. Each is there at most once."""
        received = []
        buffer = self._buffer
        for connection, events in ready:
            if connection.state is _GONE:
                continue
            if connection.rest is not None:
                if self.sockets.flush(connection):
                    self._do(self._flushed, connection)
                continue
            size = READ_BYTES if connection.request is None else BODY_BYTES
            try:
                got = connection.socket.recv_into(buffer, size)
            except BLOCKED:
                continue
            except OSError:
                self.sockets.lose(connection, "reset")
                continue
            if not got:
                self._half_closed(connection)
                continue
            if events & HANGUP or got == size:
                self._again[connection] = events
            received.append((connection, bytes(buffer[:got])))
        return received

    def _do(self, what: Callable[[Connection], None], connection: Connection) -> None:
        try:
            what(connection)
        except Exception:
            self.sockets.defect(connection)

    def _half_closed(self, connection: Connection) -> None:
        """The client has said its last. A publisher may still wait for its answers; anybody else is gone."""
        if connection.state is State.PUBLISHING or (connection.inbox and connection in self._answering.early):
            self.sockets.pause(connection)
        else:
            self.sockets.lose(connection, "closed")

    def _flushed(self, connection: Connection) -> None:
        """The rest is out: on with what came meanwhile."""
        if connection.state is State.STREAMING:
            self._subscribing.go_on(connection)
        elif connection.state is State.HEAD and connection.inbox:
            self._answering.early.append(connection)

    # Bytes, by state

    def _receive_early(self, connection: Connection, data: bytes) -> None:
        """A pipelined request waits its turn; a client that sends on and on is not read until then."""
        connection.inbox += data
        if len(connection.inbox) > self._limits.head_bytes:
            self.sockets.pause(connection)

    def _receive_last(self, connection: Connection, data: bytes) -> None:
        """We are done. What still comes is read, so that the client sees our last words, and thrown away."""
        reader = connection.input
        if reader is None or reader.finished:
            return
        reader.receive(data)
        reader.replies()  # pongs, for nobody
        if reader.finished:
            self.sockets.shut(connection)

    def _resume(self, connection: Connection) -> None:
        """Goes on with a pipelined request, once the answer before it is out."""
        if connection.state is not State.HEAD or connection.rest is not None:
            return
        received, connection.inbox = connection.inbox, b""
        self.sockets.resume(connection)
        if received:
            self.door.receive(connection, received)

    # Ends

    def _nothing_came(self, connection: Connection) -> None:
        """A connection that waits for a request has waited its time."""
        if self._still_reads(connection):
            return
        if connection.channels and not connection.inbox:
            self._subscribing.leave(connection, "left")
            self._wheel.set(connection, self._wheel.now + int(self._limits.idle_s))
        else:
            self.door.give_up(connection)

    def _goodbye_is_late(self, connection: Connection) -> None:
        if not self._still_reads(connection):
            self.sockets.lose(connection, "gone")

    def _still_reads(self, connection: Connection) -> bool:
        """Whether the client takes what is unsent, however slowly; if so, it has more time."""
        until = connection.quiet_since + int(self._limits.stall_s)
        if connection.rest is None or until <= self._wheel.now:
            return False
        self._wheel.set(connection, until)
        return True

    def _ended(self, connection: Connection, reason: str) -> None:
        self._publishing.forget(connection)
        self._subscribing.leave(connection, reason, returns=connection.ends_at == NEVER)
