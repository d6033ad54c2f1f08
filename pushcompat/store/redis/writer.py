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
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from ... import logs
from ...errors import RequestError, StoreFull, Unavailable
from ...limits import Retention
from ..base import Done, Outcome, Publish
from ..receipts import no_room
from .link import AWAY, Link, NotUsable, Server
from .problems import Problems, is_full
from .request import Request, Stored, parts, request_of
from .scripts import APPEND

FENCE_S = 3600  # how long a fence outlives its process
_PAUSE_S = (0.05, 1.0)
_PROBE_S = 1.0
_TRIES = 5  # on one connection
_CALL_S = 2.0
_WAIT_MS = 1000  # for replicas
_RETRY_S = 2
_PART = "publishing"
_BUG = "the server failed; retry with the same Idempotency-Key"
_NO_ROOM = "the log is full; retry later"

Clock = Callable[[], float]


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
                for part in parts(group):
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
        request = request_of(group, int(self._wall() * 1000))
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

    async def _attempt(self, request: Request) -> Sequence[Outcome]:
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

    async def _send(self, link: Link, request: Request) -> list[Any]:
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
                retention.idempotency_bytes, request.keyed,
                b"lasting_bytes" if lasting else b"receipt_bytes", int(lasting), request.items, *request.arguments,
                behind=(("WAIT", wait, _WAIT_MS),) if wait else (),
                timeout_s=_CALL_S + (_WAIT_MS / 1000 if wait else 0),
            )  # fmt: skip
        except ResponseError:
            request.unanswered = unanswered
            raise
        request.unanswered = unanswered
        return [*script, *replicas]

    def _outcomes(self, request: Request, epoch: str, answer: Sequence[Any]) -> Sequence[Outcome]:
        head, keys, shortened, rest = answer[1].split(b" ", 3)
        if request.lifetime_s:
            self.lasting_keys = int(keys)
        elif request.keyed:
            self.idempotency_keys = int(keys)
            if int(shortened) >= 0:
                self._shortened = int(shortened) / 1000, self._steady()
        found: dict[int, bytes] = {}
        while rest:
            number, size, rest = rest.split(b" ", 2)
            found[int(number)] = rest[: int(size)]
            rest = rest[int(size) + 1 :]
        replicas: int | None = answer[2] if len(answer) > 2 else None
        return request.outcomes(Stored(epoch, int(head), replicas, found))


def _unavailable(request: Request) -> Unavailable:
    if request.unanswered:
        return Unavailable(
            "the log did not respond, and may have stored the message; retry with the same Idempotency-Key", _RETRY_S
        )
    return Unavailable("the log is not available, and nothing was stored; retry later", _RETRY_S)
