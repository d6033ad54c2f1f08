"""Publishing: a request's body becomes drafts, the log takes them, the publisher is told.

Requests that come while the log is busy are appended together the next time, each still all or nothing. So a log that
takes a while for each append (a disk, a network) serves many publishers at the price of one.

A channel whose subscribers can not be served as fast as is published to it makes its publishers wait
(``History.full``): the request stays with us, not in the log, until the pass is through, and is refused when that
takes too long. What is refused or waits was never in the log; what was in the log is always answered 200.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from .. import logs
from ..errors import BadRequest, Refused, Unavailable
from ..limits import Limits
from ..message import Message, format_cursor
from ..metrics import Metrics
from ..store.base import Idempotency, Publish, Receipt, Store
from ..wire import drafts
from ..wire.http import Request
from .answering import Answering
from .clock import Wheel
from .connection import Connection, State
from .fanout import Fanout
from .history import History

_MOST_KEY_CHARACTERS = 256


class Pending(msgspec.Struct, eq=False):
    """A publish that is not in the log yet, and who waits for the answer."""

    connection: Connection
    request: Request
    names: Sequence[str]
    publish: Publish


class Publishing:
    def __init__(
        self,
        store: Store,
        history: History,
        fanout: Fanout,
        wheel: Wheel[Connection],
        answering: Answering,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._history = history
        self._fanout = fanout
        self._wheel = wheel
        self._limits = limits
        self._metrics = metrics
        self._answering = answering
        self._wait_s = min(limits.publish_wait_s, limits.stream_s or limits.publish_wait_s)
        self._queue: list[Pending] = []
        self._appending: list[Pending] = []  # the group that the log is taking
        self._queued = asyncio.Event()
        self._waiting: dict[Connection, Pending] = {}
        self._appended: deque[tuple[Pending, Receipt]] = deque()  # in the log, but not seen there yet

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._appending or self._appended or self._waiting)

    def body_limit(self, is_batch: bool) -> int:
        return self._limits.batch_bytes if is_batch else self._limits.message_bytes

    def submit(self, connection: Connection, request: Request, names: Sequence[str], publisher: str) -> None:
        """Takes a complete request. No names: a batch, which names them itself. Raises Refused."""
        kind, body = media_type(request), bytes(request.body)
        if names:
            messages = drafts.single(body, kind == "application/json", names, request.params)
        else:
            messages = drafts.batch(
                body, kind, request.params,
                max_messages=self._limits.batch_messages, message_bytes=self._limits.message_bytes,
            )  # fmt: skip
        names = names or tuple(dict.fromkeys(message.channel for message in messages))
        publish = Publish(messages, self._spread(messages, names), _idempotency(request, names, publisher))
        connection.request = None
        connection.move(State.PUBLISHING)
        self._admit(Pending(connection, request, names, publish))

    def give_up(self, connection: Connection) -> None:
        """Refuses a publish that has waited too long for a pass. What the log has been given is waited for."""
        pending = self._waiting.pop(connection, None)
        if pending is not None:
            names = ",".join(pending.names)
            crowded = Unavailable(f"{names}: subscribers can not be served as fast as is published; try again")
            self._answering.refuse(connection, pending.request, crowded)

    def forget(self, connection: Connection) -> None:
        """The publisher is gone. What waits is dropped; what the log has stays."""
        self._waiting.pop(connection, None)

    async def run(self) -> None:
        """Appends what comes, group by group."""
        while True:
            await self._queued.wait()
            self._queued.clear()
            self._appending, self._queue = self._queue, []
            for pending, outcome in zip(self._appending, await self._append(self._appending), strict=True):
                if isinstance(outcome, Refused):
                    self._fail(pending, outcome)
                else:
                    self._appended.append((pending, outcome))
            self._appending = []
            self.settle()

    def settle(self) -> None:
        """Answers those whose messages this process has seen in the log: who is answered, and asks, finds them."""
        appended = self._appended
        while appended and self._seen(appended[0][1]):
            self._succeed(*appended.popleft())

    def _seen(self, receipt: Receipt) -> bool:
        return receipt.sequence <= self._history.head or receipt.epoch != self._fanout.epoch

    async def _append(self, group: Sequence[Pending]) -> Sequence[Receipt | Refused]:
        try:
            return await self._store.append([pending.publish for pending in group])
        except Refused as refused:
            return [refused] * len(group)
        except Exception:
            logs.log.exception("the log could not take %d publishes", len(group))
            return [Unavailable("the log could not take this; try again with the same Idempotency-Key")] * len(group)

    def _fail(self, pending: Pending, refused: Refused) -> None:
        if pending.connection.state is State.PUBLISHING:
            self._answering.refuse(pending.connection, pending.request, refused)

    def _succeed(self, pending: Pending, receipt: Receipt) -> None:
        connection = pending.connection
        cursor = format_cursor(receipt.epoch, receipt.sequence)
        self._metrics.publishes += not receipt.repeated
        if logs.enabled() and not receipt.repeated:
            logs.event("publish", channels=pending.names, id=cursor, messages=len(pending.publish.drafts))
        if connection.state is State.PUBLISHING:
            counts = ",".join([f'"{name}":{{"subscribers":{n}}}' for name, n in receipt.subscribers.items()])
            document = f'{{"id":"{cursor}","channels":{{{counts}}}}}\n'
            self._answering.answer(connection, pending.request, document.encode())

    def _admit(self, pending: Pending) -> None:
        """Hands the publish to the log, or puts it behind the pass of a channel that is full."""
        for name in pending.names:
            channel = self._history.find(name)
            if channel is not None and self._history.full(channel):
                self._metrics.publish_waits += 1
                self._waiting[pending.connection] = pending
                self._wheel.set(pending.connection, pending.connection.since + int(self._wait_s))
                if channel.waiting is None:
                    channel.waiting = deque()
                channel.waiting.append(lambda: self._readmit(pending))
                return
        self._queue.append(pending)
        self._queued.set()

    def _readmit(self, pending: Pending) -> None:
        if self._waiting.pop(pending.connection, None) is pending:
            self._admit(pending)

    def _spread(self, drafts: Sequence[Message], names: Sequence[str]) -> dict[str, int]:
        """Tells each draft its spread; returns how many follow each channel."""
        counts = {name: self._fanout.subscribers(self._history.find(name)) for name in names}
        rate = self._limits.refetch_rate
        if rate is not None:
            for draft in drafts:
                draft.spread_ms = math.ceil(counts[draft.channel] / rate * 1000)
        return counts


def media_type(request: Request) -> str:
    return drafts.media_type(request.headers.get(b"content-type", b""), request.headers.get(b"content-encoding", b""))


def _idempotency(request: Request, names: Sequence[str], publisher: str) -> Idempotency | None:
    if b"idempotency-key" not in request.headers:
        return None
    key = request.header(b"idempotency-key").strip()
    if not key:
        return None
    if len(key) > _MOST_KEY_CHARACTERS:
        raise BadRequest(f"an Idempotency-Key has at most {_MOST_KEY_CHARACTERS} characters")
    params = [f"{name}={request.params.get(name, '')}" for name in ("key", "type", "ttl")]
    about = "\n".join([media_type(request), *names, *params, ""])
    return Idempotency(publisher, key, sha256(about.encode() + request.body).digest())
