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
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from .. import logs, policy
from ..errors import BadRequest, PayloadTooLarge, Refused, Unavailable, UnsupportedMedia
from ..limits import Limits
from ..message import SIGNAL, SIGNAL_KEY, Message, format_cursor
from ..metrics import Metrics
from ..store.base import Idempotency, Publish, Receipt, Store
from ..wire.http import Request
from .answering import Answering
from .clock import Wheel
from .connection import Connection, State
from .fanout import Fanout
from .history import History

_TEXT_TYPES = ("", "application/x-www-form-urlencoded")  # no type at all, and what curl -d says
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
        drafts = self._batch(request) if not names else _drafts(request, names)
        names = names or tuple(dict.fromkeys(draft.channel for draft in drafts))
        publish = Publish(drafts, self._spread(drafts, names), _idempotency(request, names, publisher))
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

    def _batch(self, request: Request) -> list[Message]:
        if media_type(request) != "application/json":
            raise UnsupportedMedia("a batch is a JSON array; send it as application/json")
        if {"key", "type", "ttl"} & request.params.keys():
            raise BadRequest("in a batch, key, type and ttl belong to each message")
        items = _decode(request.body, list[Item])
        if not 0 < len(items) <= self._limits.batch_messages:
            raise BadRequest(f"a batch has 1 to {self._limits.batch_messages} messages, not {len(items)}")
        return [self._item(index, item) for index, item in enumerate(items)]

    def _item(self, index: int, item: Item) -> Message:
        try:
            (name,) = policy.channel_names(item.channel, 1)
            data, is_json = b"" if item.data is msgspec.UNSET else bytes(item.data), True
            if data[:1] in (b'"', b""):
                data, is_json = (msgspec.json.decode(data, type=str).encode() if data else b""), False
            if len(data) > self._limits.message_bytes:
                raise PayloadTooLarge(f"a message may have at most {self._limits.message_bytes} bytes")
            return _draft(name, data, is_json, item.key, item.type, item.ttl)
        except Refused as refused:
            refused.detail = f"message {index} of the batch: {refused.detail}"
            raise


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a batch."""

    channel: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    key: str | None = None
    type: str | None = None
    ttl: float | None = None


def media_type(request: Request) -> str:
    """The body's type, checked: JSON or text, UTF-8, not compressed. Raises UnsupportedMedia."""
    return _media_type(request.headers.get(b"content-type", b""), request.headers.get(b"content-encoding", b""))


@lru_cache(64)
def _media_type(content_type: bytes, content_encoding: bytes) -> str:
    name, _, parameters = content_type.decode("latin-1").lower().partition(";")
    name = name.strip()
    if name != "application/json" and name not in _TEXT_TYPES and not name.startswith("text/"):
        raise UnsupportedMedia(f"publish application/json or text/plain, not {name[:60]}")
    if "charset=" in parameters and "utf-8" not in parameters and "utf8" not in parameters:
        raise UnsupportedMedia("the charset must be utf-8")
    if content_encoding.lower() not in (b"", b"identity"):
        raise UnsupportedMedia("send the body without Content-Encoding")
    return name


def _drafts(request: Request, names: Sequence[str]) -> list[Message]:
    data, params = bytes(request.body), request.params
    is_json = bool(data) and media_type(request) == "application/json"
    if is_json:
        _decode(data, Any)
        data = data.strip()
    else:
        _check_utf8(data)
    ttl = policy.seconds("ttl", params["ttl"]) if params.get("ttl") else None
    key, kind = params.get("key") or None, params.get("type") or None
    return [_draft(name, data, is_json, key, kind, ttl) for name in names]


def _draft(name: str, data: bytes, is_json: bool, key: str | None, kind: str | None, ttl: float | None) -> Message:
    if key is not None:
        policy.label("key", key)
    if kind is not None:
        policy.label("type", kind)
    if ttl is not None and not ttl > 0:
        raise BadRequest("ttl is a number of seconds above 0")
    if not data:
        return Message(name, SIGNAL, False, SIGNAL_KEY if key is None else key, kind, ttl)
    return Message(name, data, is_json, key, kind, ttl)


def _decode(body: bytes | bytearray, kind: Any) -> Any:
    _check_utf8(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the batch is not as it should be: {error}") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}; publish text as text/plain") from None
    except RecursionError:
        raise BadRequest("the JSON is nested too deep") from None


def _check_utf8(body: bytes | bytearray) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from None


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
