"""The log on a Redis or Valkey server, shared by any number of processes on any number of machines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec
from redis.exceptions import AuthenticationError, ResponseError

from ... import logs
from ...errors import ConfigError
from ...limits import Retention
from ...logs import Event
from ..base import Done, Health, News, Publish, Retained, StoreError
from . import snapshot
from .entries import Place
from .follower import Follower
from .link import AWAY, Link, NotUsable, Server, State, state_from
from .problems import Problems, sentence
from .registry import RedisRegistry
from .urls import parse
from .writer import Writer

_OPEN_S = 5.0  # Redis may be starting too
_PAUSE_S = 0.2
_TRIM_APART_S = 2.0
_KEEP_ALIVE_S = 30.0
_READING = "reading"
_DAMAGED = "parts of the log are missing; the rest is discarded"

Clock = Callable[[], float]


class RedisStore:
    def __init__(
        self,
        url: str,
        retention: Retention,
        clock: Clock = time.time,
        steady: Clock = time.monotonic,
        timeout_s: float = 20.0,
    ) -> None:
        """``timeout_s``: how long a publish waits for a log that does not answer. Raises ConfigError."""
        self.epoch = ""
        self._retention = retention
        self._clock = clock
        self._server = Server(parse(url), steady)
        self._keys = self._server.keys
        self._problems = Problems(self._server.address.shown)
        self._writer = Writer(self._server, retention, (clock, steady), self._problems, self._free_memory, timeout_s)
        self._writing: asyncio.Task[None] | None = None
        self._loaded: tuple[str, int, Place] | None = None  # epoch, number and place of the last load's end
        self._link: Link | None = None  # for short reads
        self._asking = asyncio.Lock()
        self._trimming: asyncio.Task[None] | None = None
        self._trim_at = self._keep_alive_at = 0.0

    # Life

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _OPEN_S
        while True:
            try:
                await self._warn()
                break
            except AWAY as error:
                refused = isinstance(error, AuthenticationError | ResponseError)
                wrong = (
                    isinstance(error, NotUsable) and self._server.address.service is None
                )  # otherwise it may be a failover
                sentence = self._problems.note("opening", error)
                if refused or wrong or loop.time() > until:
                    raise ConfigError(f"--store {sentence}") from None
                await self._hang_up()
                await asyncio.sleep(_PAUSE_S)
        self._problems.clear("opening")
        self._writing = asyncio.create_task(self._writer.run())

    async def _warn(self) -> None:
        """Connects, and logs what in the server's configuration can lose messages."""
        link = await self._connected()
        self.epoch = link.state.epoch
        try:
            replies = await link.call(("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "maxmemory-policy"))
        except ResponseError:
            _warn("CONFIG GET is not permitted: check that appendonly is yes, and maxmemory-policy noeviction")
            return
        found = dict(reply for reply in replies if len(reply) == 2)
        if found.get(b"appendonly") == b"no":
            _warn("appendonly is no: a restart of the server loses all messages since its last dump")
        policy = found.get(b"maxmemory-policy", b"noeviction").decode()
        if policy.startswith("allkeys"):
            _warn(f"maxmemory-policy is {policy}, which can evict the log: set noeviction")

    async def close(self) -> None:
        tasks = [task for task in (self._writing, self._trimming) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._hang_up()

    def health(self) -> Health:
        writer = self._writer
        return Health(
            self._problems.first,
            writer.idempotency_keys + writer.lasting_keys,
            writer.idempotency_window_s,
            writer.works,
        )

    # Appending

    def append(self, group: Sequence[Publish], done: Done) -> None:
        self._writer.append(group, done)

    # Reading

    async def retained(self) -> Retained:
        try:
            link = await self._server.connect()
            try:
                log = await self._load(link)
            finally:
                await link.close()
            now_ms = int(self._clock() * 1000)
            kept = await asyncio.to_thread(log.retain, self._retention, now_ms)  # 1 µs a message
        except (*AWAY, msgspec.DecodeError) as error:
            raise StoreError(self._problems.note(_READING, error)) from error
        self._problems.clear(_READING)
        head = log.place.sequence
        self.epoch = log.state.epoch
        self._loaded = self.epoch, head, log.place
        return Retained(kept.messages, kept.floor, head, self.epoch, kept.floors)

    async def _load(self, link: Link) -> snapshot.Log:
        try:
            return await snapshot.load(link, self._keys)
        except snapshot.Damaged:
            logs.event(Event.LOG_DAMAGED, logging.ERROR, detail=f"{self._server.address.shown}: {_DAMAGED}")
            state = await link.identify(self._keys)
            await link.renew(self._keys, state.epoch, None, discard=True)
            return await snapshot.load(link, self._keys)

    async def head(self) -> tuple[str, int]:
        async with self._asking:
            try:
                link = await self._connected()
                replication, fields = await link.call(("INFO", "replication"), self._keys.read_state)
                state = state_from(fields)
                if not state.epoch or not link.is_same(replication):
                    state = await link.identify(self._keys)
            except AWAY as error:
                await self._hang_up()
                raise StoreError(self._problems.note(_READING, error)) from error
        self._problems.clear(_READING)
        return state.epoch, state.head

    async def follow(self, after: int, epoch: str, news: News) -> None:
        place = None
        if self._loaded is not None and self._loaded[:2] == (epoch, after):
            place = self._loaded[2]
        await Follower(self._server, self._problems, self._look, epoch, news).run(after, place)

    def registry(self) -> RedisRegistry:
        return RedisRegistry(self._server)

    async def _connected(self) -> Link:
        if self._link is None:
            self._link = await self._server.connect()
        return self._link

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    # Housekeeping

    def _look(self, state: State) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._keep_alive_at:
            self._keep_alive_at = now + _KEEP_ALIVE_S
            self._writer.keep_alive()
        if snapshot.due(state, self._retention):
            self._make_room()

    def _free_memory(self) -> None:
        self._make_room(tail=0)

    def _make_room(self, **options: int) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._trim_at and (self._trimming is None or self._trimming.done()):
            self._trim_at = now + _TRIM_APART_S
            self._trimming = asyncio.create_task(self._trim(**options))

    async def _trim(self, **options: int) -> None:
        try:
            await self.trim(**options)
        except (*AWAY, snapshot.Damaged, msgspec.DecodeError) as error:
            logs.log.warning("no snapshot was written: %s", sentence(error))

    async def trim(self, **options: int) -> str:
        """Writes a snapshot and trims the log; returns why not, or "". Raises Damaged, or one of ``AWAY``."""
        link = await self._server.connect()
        try:
            return await snapshot.write(link, self._keys, self._retention, int(self._clock() * 1000), **options)
        finally:
            await link.close()


def _warn(detail: str) -> None:
    logs.event(Event.LOG_TROUBLE, logging.WARNING, detail=detail)
