"""Appends each group exactly once.

A connection can fail between a command and its reply, and a command can be delayed by the network and arrive later.
So each process has a fence in the log, under a random name: the number of its last group. A group without an answer
is sent again with the same number, until there is an answer or the publishers' timeout expires. The script stores it
once, and returns the first answer again. Only a registration creates a fence: if an append created a missing one, a
delayed copy of a command that arrives after the fence expired would be stored a second time. A new epoch does not
change the number.

A group that was sent and got no answer may be stored or not. Its publishers get 503; when they repeat it with the
same Idempotency-Key, they get the stored answer if there is one.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from ... import logs
from ...errors import KeyReused, RequestError, StoreFull, Unavailable
from ...limits import Retention
from ..base import Done, Idempotency, Outcome, Publish, Receipt
from ..receipts import no_room
from .entries import NONCE_BYTES, pack
from .link import AWAY, Link, NotUsable, Server
from .problems import Problems, is_full
from .scripts import APPEND

FENCE_S = 3600  # how long a fence outlives its process
_PAUSE_S = (0.05, 1.0)
_PROBE_S = 1.0
_TRIES = 5  # on one connection
_CALL_S = 2.0
_WAIT_MS = 1000  # for replicas
_RETRY_S = 2
_KEY_BYTES = 16
_MAX_MESSAGES = 1000
_MAX_BYTES = 4 * 1024 * 1024
_PART = "publishing"
_BUG = "the server failed; retry with the same Idempotency-Key"
_NO_ROOM = "the log is full; retry later"

Clock = Callable[[], float]


class _Answer(msgspec.Struct, array_like=True):
    """The data stored with an Idempotency-Key, besides the id."""

    digest: bytes
    subscribers: Mapping[str, int]


_decode = msgspec.msgpack.Decoder(_Answer).decode
_encode = msgspec.msgpack.Encoder().encode


class Writer:
    """``wall`` dates messages; ``steady`` measures. ``full`` is called when the server is out of memory."""

    def __init__(
        self,
        server: Server,
        retention: Retention,
        clocks: tuple[Clock, Clock],
        problems: Problems,
        full: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._server = server
        self._keys = server.keys
        self._retention = retention
        self._wall, self._steady = clocks
        self._problems = problems
        self._full = full
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._number = 0
        self._problem = False
        self._away_since: float | None = None
        self._groups: asyncio.Queue[tuple[Sequence[Publish], Done] | None] = asyncio.Queue()
        self.fence = ""  # its key; "": to be registered
        self.idempotency_keys = self.lasting_keys = 0
        self._shortened = retention.idempotency_s, 0.0  # the window under pressure, and when that was

    @property
    def works(self) -> bool:
        return not self._problem

    @property
    def idempotency_window_s(self) -> float:
        window_s, when = self._shortened
        full = self._retention.idempotency_s
        return window_s if self._steady() < when + full else full

    def append(self, group: Sequence[Publish], done: Done) -> None:
        self._groups.put_nowait((group, done))

    def keep_alive(self) -> None:
        """Uses the connection if it is idle: firewalls drop idle connections without notice."""
        if self._groups.empty():
            self._groups.put_nowait(None)

    async def run(self) -> None:
        """Appends until it is cancelled."""
        try:
            await self._probe()  # so that the first publish does not wait for a connection
            while True:
                work = await self._next()
                if work is None:
                    await self._probe()
                    continue
                group, done = work
                outcomes: list[Outcome] = []
                for part in _parts(group):
                    outcomes += await self._store_or_fail(part)
                done(outcomes)
        finally:
            await self._drop()

    async def _next(self) -> tuple[Sequence[Publish], Done] | None:
        """The next group. After a failure, checks about once a second whether the log can be written again."""
        while self._problem:
            try:
                async with asyncio.timeout(_PROBE_S):
                    return await self._groups.get()
            except TimeoutError:
                await self._probe()
        return await self._groups.get()

    async def _probe(self) -> None:
        try:
            if self._link is None:
                self._link = await self._server.connect()
            await self._link.call(("SET", self._keys("probe"), "", "PX", 1))
            if not self.fence:
                await self._register(self._link)
        except AWAY as error:
            await self._fail(error)
        else:
            self._succeed()

    def _succeed(self) -> None:
        self._away_since = None
        if self._problem:
            self._problem = False
            self._problems.clear(_PART)

    async def _fail(self, error: BaseException) -> None:
        self._problem = True
        self._problems.note(_PART, error)
        if is_full(error):
            self._full()
            return
        self._away_since = self._away_since or asyncio.get_running_loop().time()
        await self._drop()

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _store_or_fail(self, group: Sequence[Publish]) -> Sequence[Outcome]:
        try:
            return await self._store(group)
        except Exception:
            logs.log.exception("BUG: %d publishes were not stored", len(group))
            await self._drop()  # a reply may be left in it
            return [Unavailable(_BUG, _RETRY_S)] * len(group)

    async def _store(self, group: Sequence[Publish]) -> Sequence[Outcome]:
        request = _Request(group, int(self._wall() * 1000))
        self._number += 1
        now = asyncio.get_running_loop().time
        give_up_at = (self._away_since or now()) + self._timeout_s
        pause_s, most_s = _PAUSE_S
        idle = self._link is not None  # the server may have closed an idle connection, which is no problem
        while True:
            try:
                outcomes = await self._attempt(request)
            except RequestError as refused:
                return [refused] * len(group)
            except AWAY as error:
                if idle and isinstance(error, RedisConnectionError):
                    idle = False
                    await self._drop()
                    continue
                await self._fail(error)
                if is_full(error):
                    return [_unavailable(request) if request.unanswered else StoreFull(_NO_ROOM)] * len(group)
            else:
                self._succeed()
                return outcomes
            if now() + pause_s > give_up_at:
                return [_unavailable(request)] * len(group)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(most_s, pause_s * 2)

    async def _attempt(self, request: _Request) -> Sequence[Outcome]:
        """Raises one of ``AWAY``, or RequestError."""
        link = self._link
        if link is None:
            link = self._link = await self._server.connect()
        for _ in range(_TRIES):
            if not self.fence:
                await self._register(link)
            answer = await self._send(link, request)
            if answer[0] == b"stored":
                return self._outcomes(request, link.state.epoch, answer)
            if answer[0] == b"epoch":
                await link.identify(self._keys)
                continue
            if answer[0] == b"full":
                raise no_room()
            self.fence = ""
            if request.unanswered:  # it may have been stored before the fence was lost
                raise _unavailable(request)
        raise NotUsable("the epoch of the log keeps changing")

    async def _register(self, link: Link) -> None:
        fence = self._keys(f"writer:{secrets.token_hex(8)}")
        await link.call(("SET", fence, "0 ", "EX", FENCE_S))
        self.fence = fence

    async def _send(self, link: Link, request: _Request) -> list[Any]:
        """The script's answer, and the number of replicas if ``wait`` is set."""
        keys = self._keys
        retention = self._retention
        lasting = request.lifetime_s > 0
        receipts = (keys.lasting, keys.lasting_by_age) if lasting else (keys.receipts, keys.receipts_by_age)
        wait = self._server.address.wait
        unanswered, request.unanswered = request.unanswered, True
        try:
            script, *replicas = await link.run(
                APPEND,
                (keys.state, keys.log, self.fence, *receipts),
                link.state.epoch, link.ident, self._number, request.nonce, FENCE_S,
                int((self._steady() + link.ahead_s) * 1000),
                int((request.lifetime_s or retention.idempotency_s) * 1000),
                retention.idempotency_bytes, len(request.keyed),
                b"lasting_bytes" if lasting else b"receipt_bytes", int(lasting), *request.arguments,
                behind=(("WAIT", wait, _WAIT_MS),) if wait else (),
                timeout_s=_CALL_S + (_WAIT_MS / 1000 if wait else 0),
            )  # fmt: skip
        except ResponseError:
            request.unanswered = unanswered
            raise
        request.unanswered = unanswered
        return [*script, *replicas]

    def _outcomes(self, request: _Request, epoch: str, answer: Sequence[Any]) -> Sequence[Outcome]:
        head, keys, shortened, rest = answer[1].split(b" ", 3)
        replicas: int | None = answer[2] if len(answer) > 2 else None
        if request.lifetime_s:
            self.lasting_keys = int(keys)
        elif request.keyed:
            self.idempotency_keys = int(keys)
            if int(shortened) >= 0:
                self._shortened = int(shortened) / 1000, self._steady()
        found: dict[int, bytes] = {}
        while rest:
            index, size, rest = rest.split(b" ", 2)
            found[request.keyed[int(index)]] = rest[: int(size)]
            rest = rest[int(size) + 1 :]
        sequence = int(head)
        outcomes: list[Outcome] = []
        for index, publish in enumerate(request.group):
            first = request.again.get(index)
            if first is not None:
                outcomes.append(_repeated(publish, request.group[first], outcomes[first]))
            elif index in found:
                outcomes.append(_first_answer(publish, found[index]))
            else:
                sequence += len(publish.drafts)
                outcomes.append(Receipt(epoch, sequence, publish.subscribers, replicas=replicas))
        return outcomes


class _Request:
    """A group as arguments of the script; the same each time it is sent."""

    def __init__(self, group: Sequence[Publish], time_ms: int) -> None:
        self.group = group
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self.unanswered = False  # it was sent, and may be stored or not
        self.keyed: list[int] = []  # the publishes with a key that is new in this group
        self.lifetime_s = _lifetime_s(group[0])
        self.again: dict[int, int] = {}  # those with the key of an earlier one in this group: its index
        keys: dict[tuple[str, str], int] = {}
        head: list[bytes | int] = []
        packed: list[bytes] = []
        for index, publish in enumerate(group):
            idempotency = publish.idempotency
            if idempotency is not None:
                name = idempotency.publisher, idempotency.key
                if name in keys:
                    self.again[index] = keys[name]
                    continue
                keys[name] = index
                self.keyed.append(index)
                answer = _encode((idempotency.digest, publish.subscribers))
                head += _field(idempotency), answer, len(packed) + 1, len(packed) + len(publish.drafts)
            packed += [pack(draft, time_ms) for draft in publish.drafts]
        self.arguments = [*head, *packed]


def _parts(group: Sequence[Publish]) -> Iterator[Sequence[Publish]]:
    """The group in parts that the server stores within a few milliseconds. All keys of a part have one lifetime."""
    start = messages = size = 0
    for index, publish in enumerate(group):
        if index > start and _lifetime_s(publish) != _lifetime_s(group[start]):
            yield group[start:index]
            start, messages, size = index, 0, 0
        messages += len(publish.drafts)
        size += sum([len(draft.data) for draft in publish.drafts])
        if messages >= _MAX_MESSAGES or size >= _MAX_BYTES:
            yield group[start : index + 1]
            start, messages, size = index + 1, 0, 0
    if start < len(group):
        yield group[start:]


def _lifetime_s(publish: Publish) -> float:
    return 0.0 if publish.idempotency is None else publish.idempotency.lifetime_s


def _field(idempotency: Idempotency) -> bytes:
    return sha256(f"{idempotency.publisher}\n{idempotency.key}".encode()).digest()[:_KEY_BYTES]


def _first_answer(publish: Publish, stored: bytes) -> Outcome:
    assert publish.idempotency is not None
    sequence, _, epoch, packed = stored.split(b" ", 3)
    answer = _decode(packed)
    if answer.digest != publish.idempotency.digest:
        return _reused()
    return Receipt(epoch.decode(), int(sequence), answer.subscribers, repeated=True)


def _repeated(publish: Publish, first: Publish, outcome: Outcome) -> Outcome:
    assert publish.idempotency is not None
    assert first.idempotency is not None
    if publish.idempotency.digest != first.idempotency.digest:
        return _reused()
    return replace(outcome, repeated=True) if isinstance(outcome, Receipt) else outcome


def _reused() -> KeyReused:
    return KeyReused("this Idempotency-Key was used with another body; use a new key for each publish")


def _unavailable(request: _Request) -> Unavailable:
    if request.unanswered:
        return Unavailable(
            "the log did not respond, and may have stored the message; retry with the same Idempotency-Key", _RETRY_S
        )
    return Unavailable("the log is not available, and nothing was stored; retry later", _RETRY_S)
