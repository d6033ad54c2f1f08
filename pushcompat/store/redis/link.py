"""Connections to the server, and the identity check that each of them begins with.

A server that restarts or is replaced may have lost the end of the log, and does not report it. But its identity
changes: ``run_id`` with every start, ``master_replid`` with every promotion. The state contains the identity of the
server that the log was written on. If it differs, the first process that notices starts a new epoch
(``scripts.RENEW``), before it reads or appends anything. One change means no loss: a server that gets its first
replica takes a new ``master_replid`` without a predecessor (``master_replid2`` is all zeros).

So no connection may be replaced without this check. The clients of redis-py reconnect during a call, and repeat a
command up to ten times. Therefore only its connections are used: a ``Link`` owns one, and ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from ... import logs
from ...logs import Event
from ...message import new_epoch
from .entries import NONCE_BYTES, Place, order
from .scripts import MOVE, RENEW, Script
from .urls import Address

AWAY = (RedisError, OSError)  # what ``Link.call`` raises; asyncio's TimeoutError is an OSError
_CONNECT_S = 2.0
_CALL_S = 2.0
_CHECKS = 5  # of the identity, while other processes change the state
_OLDEST = (6, 2)  # XTRIM MINID

Command = Sequence[bytes | str | int | float]


class NotUsable(RedisError):
    """The server responds, but cannot be used: a replica, or too old. The message is a sentence for the operator."""


VERSION = 1
FOREIGN = "the log has data of another application; set another prefix with ?prefix= in the URL of --store"


class State(NamedTuple):
    """What the state hash holds."""

    epoch: str = ""  # "": there is no state
    ident: str = ""
    head: int = 0
    nonce: bytes = b""
    size: int = 0  # bytes appended in all
    snapshot: bytes = b"0-0"  # the place in the log up to which it goes
    snapshot_nonce: bytes = b""
    snapshot_key: str = ""
    snapshot_chunks: int = 0
    snapshot_count: int = 0  # messages in it
    snapshot_size: int = 0  # ``size``, there
    floor: int = 0  # without a snapshot
    version: int = VERSION  # of what all keys hold

    @property
    def base(self) -> Place:
        """The place at which the snapshot ends and the stream continues."""
        return Place(self.snapshot, self.snapshot_nonce)


_NUMBERS = {"head", "size", "snapshot_chunks", "snapshot_count", "snapshot_size", "floor", "version"}
_BINARY = {"nonce", "snapshot", "snapshot_nonce"}


def state_from(fields: Sequence[bytes | None]) -> State:
    """Raises NotUsable."""
    if fields[0] is None:
        return State()
    values: dict[str, Any] = {}
    try:
        for name, value in zip(State._fields, fields, strict=True):
            if value is not None:
                values[name] = int(value) if name in _NUMBERS else value if name in _BINARY else value.decode()
        state = State(**values)
        order(state.snapshot)
    except ValueError:
        raise NotUsable(FOREIGN) from None
    return state


class Keys:
    """All of them hash to one slot of a cluster."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{{{prefix}}}"
        self.state = self("state")
        self.log = self("log")
        self.lease = self("lease")
        self.receipts = self("receipts")
        self.receipts_by_age = self("receipts:age")
        self.lasting = self("lasting")
        self.lasting_by_age = self("lasting:age")
        self.read_state: Command = ("HMGET", self.state, *State._fields)

    def __call__(self, name: str) -> str:
        return f"{self._prefix}:{name}"


class Link:
    """One connection, after its identity check. It ends with the first error that is not a reply of the server."""

    def __init__(self, connection: AbstractConnection, steady: Callable[[], float]) -> None:
        self._connection = connection
        self._steady = steady
        self.state = State()  # at the time of the check
        self.ident = ""
        self.ahead_s = 0.0  # how much the server's clock is ahead of this process's

    async def call(self, *commands: Command, timeout_s: float | None = None) -> list[Any]:
        """Sends the commands at once, and returns their replies. Raises one of ``AWAY``."""
        connection = self._connection
        if not connection.is_connected:  # redis-py would reconnect
            raise ConnectionError("the connection is closed")
        replies: list[Any] = []
        refused: ResponseError | None = None
        try:
            async with asyncio.timeout(timeout_s or _CALL_S):
                if len(commands) == 1:
                    await connection.send_packed_command(connection.pack_command(*commands[0]), check_health=False)
                else:
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        refused = refused or error
        except TimeoutError:
            raise TimeoutError("no answer in time") from None
        if refused is not None:
            raise refused
        return replies

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        *arguments: bytes | str | int,
        behind: Sequence[Command] = (),
        timeout_s: float | None = None,
    ) -> list[Any]:
        """Runs the script, and sends ``behind`` with it; returns all replies. Raises one of ``AWAY``."""
        command = "EVALSHA", script.sha, len(keys), *keys, *arguments
        try:
            return await self.call(command, *behind, timeout_s=timeout_s)
        except NoScriptError:
            await self.call(("SCRIPT", "LOAD", script.text))
            return await self.call(command, *behind, timeout_s=timeout_s)

    async def close(self) -> None:
        connection = self._connection
        try:
            await connection.disconnect(nowait=not isinstance(connection, SSLConnection))  # TLS closes with a handshake
        except RedisError:
            pass  # no response in time

    # Identity

    async def identify(self, keys: Keys) -> State:
        """Checks the server's identity, and starts a new epoch if it changed. Raises one of ``AWAY``."""
        for _ in range(_CHECKS):
            replication, about, clock, fields = await self.call(
                ("INFO", "replication"), ("INFO", "server"), ("TIME",), keys.read_state
            )
            role = _info(replication)
            server = _info(about)
            _check(role, server)
            self.ahead_s = int(clock[0]) + int(clock[1]) / 1e6 - self._steady()
            self.ident = f"{server.get('run_id', '')}:{role.get('master_replid', '')}"
            self.state = state = state_from(fields)
            if state.version > VERSION:
                raise NotUsable("the log was written by a newer version of pushcompat; upgrade this one")
            if state.epoch and state.ident == self.ident:
                return state
            first_replica = not role.get("master_replid2", "").strip("0")
            if state.epoch and first_replica and state.ident.partition(":")[0] == server.get("run_id"):
                await self.run(MOVE, [keys.state], state.epoch, state.ident, self.ident)
            else:
                await self.renew(keys, state.epoch, "the server was restarted or replaced" if state.epoch else None)
        raise NotUsable("the epoch of the log keeps changing")

    async def renew(self, keys: Keys, epoch: str, why: str | None, *, discard: bool = False) -> None:
        """Starts a new epoch, if the log still has this one ("": it has no state). ``why``: for a log line."""
        nonce, new = secrets.token_bytes(NONCE_BYTES), new_epoch()
        (now,) = await self.run(RENEW, [keys.state, keys.log], epoch, self.ident, new, nonce, int(discard), VERSION)
        if now == new.encode() and why is not None:
            logs.event(Event.LOG_RENEWED, logging.WARNING, epoch=new, detail=why)

    def is_same(self, replication: bytes) -> bool:
        """Whether the server is still a master with the same replication ID. ``replication``: its INFO."""
        role = _info(replication)
        return role.get("role") == "master" and self.ident.endswith(f":{role.get('master_replid')}")


def _info(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _check(role: dict[str, str], server: dict[str, str]) -> None:
    if role.get("role") != "master":
        raise NotUsable("this server is a replica; use the URL of its master, or of the Sentinels")
    version = tuple(int(number) for number in re.findall(r"\d+", server.get("redis_version", ""))[:2])
    if version < _OLDEST:
        raise NotUsable(f"the server is Redis {server.get('redis_version')}; at least 6.2 is required")


class Server:
    """Creates links."""

    def __init__(self, address: Address, steady: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._steady = steady
        self.keys = Keys(address.prefix)

    async def connect(self) -> Link:
        """A new connection, checked. Raises one of ``AWAY``."""
        async with asyncio.timeout(2 * _CONNECT_S):
            connection = await self._connection()
            link = Link(connection, self._steady)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await link.identify(self.keys)
            except BaseException:
                await link.close()
                raise
        return link

    async def _connection(self) -> AbstractConnection:
        options = {
            **self.address.options,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,  # ``Link.call`` has its own
            "socket_connect_timeout": _CONNECT_S,
        }
        if "path" in options:
            return UnixDomainSocketConnection(**options)
        if self.address.service is not None:
            options["host"], options["port"] = await self._ask_sentinels(self.address.service)
        return (SSLConnection if self.address.tls else Connection)(**options)

    async def _ask_sentinels(self, service: str) -> tuple[str, int]:
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            self.address.sentinels,
            sentinel_kwargs={
                "socket_timeout": 0.5,
                "socket_connect_timeout": 0.5,
                "retry": Retry(NoBackoff(), 0),
                **self.address.sentinel_options,
            },
        )
        try:
            host, port = await sentinel.discover_master(service)
            return str(host), int(port)
        except MasterNotFoundError:  # its text has the clients with all their options
            raise NotUsable(f"no Sentinel responds, or none has a master {service!r} that is up") from None
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
