"""The current problems of the log, for ``health`` and for the log lines when they begin and end."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import NamedTuple

import msgspec
from redis import exceptions as redis

from ... import logs
from ...logs import Event
from .link import FOREIGN, NotUsable


class _Kind(NamedTuple):
    error: type[BaseException] | tuple[type[BaseException], ...]
    sentence: str
    words: str = ""  # that the error's text has


_FULL = "the server is out of memory; increase its maxmemory, or decrease --history-bytes"
_CLUSTER = "the server belongs to a Redis Cluster, which is not supported; use one without it"
_UNAUTHENTICATED = (
    "the server does not accept the user or the password; compare those in the URL of --store with its ACL"
)

# The first that fits. A sentence says what happened, and which setting to look at.
_KINDS = (
    _Kind(
        (redis.TimeoutError, TimeoutError),
        "the server did not answer in time; check its load, the network, and whether it requires TLS (rediss://)",
    ),
    _Kind(redis.BusyLoadingError, "the server still loads its data from disk; wait until it has"),
    _Kind((redis.AuthenticationError, redis.AuthorizationError), _UNAUTHENTICATED),
    _Kind(redis.AuthenticationWrongNumberOfArgsError, _UNAUTHENTICATED),
    _Kind(redis.ConnectionError, "the server has too many clients; increase its maxclients", "max number of clients"),
    _Kind(socket.gaierror, "the name of the server cannot be resolved; check the host in the URL of --store"),
    _Kind(ssl.SSLError, "the TLS handshake failed; check rediss:// and ssl_ca_certs in the URL of --store"),
    _Kind(
        ConnectionRefusedError,
        "the server does not accept connections; check that it runs, and the host and port in the URL of --store",
    ),
    _Kind(FileNotFoundError, "there is no such socket; check the path in the URL of --store"),
    _Kind(PermissionError, "this process may not use the socket; check unixsocketperm of the server"),
    _Kind(
        redis.ConnectionError,
        "the server cannot be reached; check that it runs, and the host and port in the URL of --store",
        "onnecting to",
    ),
    _Kind(
        (redis.ConnectionError, OSError),
        "the connection to the server was lost; check its log, and its settings timeout and client-output-buffer-limit",
    ),
    _Kind(redis.OutOfMemoryError, _FULL),
    _Kind(redis.ResponseError, _FULL, "used memory > 'maxmemory'"),  # Redis 6.2 gives the reason only in the text
    _Kind(
        redis.NoPermissionError,
        "the user of the log lacks a permission; give it ~{PREFIX}:* +@all -@dangerous +info, with the log's prefix",
    ),
    _Kind(
        redis.ReadOnlyError, "the server became a replica; use the URL of its master, or of the Sentinels, in --store"
    ),
    _Kind(redis.ResponseError, "the server became a replica, or lost its master; wait for the fail-over", "UNBLOCKED"),
    _Kind((redis.MovedError, redis.AskError, redis.ClusterCrossSlotError), _CLUSTER),
    _Kind(redis.MasterDownError, "the server is a replica without its master; check replica-serve-stale-data"),
    _Kind(redis.ClusterError, _CLUSTER),
    _Kind(
        redis.ResponseError,
        "the server cannot save its data, and accepts no writes; check its log, and the free space of its disk",
        "MISCONF",
    ),
    _Kind(
        redis.ResponseError,
        "the server has too few replicas, and accepts no writes; check its replicas, and min-replicas-to-write",
        "NOREPLICAS",
    ),
    _Kind(redis.ResponseError, "the server runs a script of another client for too long; check its log", "BUSY "),
    _Kind(
        redis.ResponseError,
        "another application has written to keys of the log; set another prefix with ?prefix= in the URL of --store",
        "WRONGTYPE",
    ),
    _Kind(
        redis.ResponseError,
        "the server has no database of this number; check the URL of --store, and the server's setting databases",
        "DB index is out of range",
    ),
    _Kind(
        redis.ResponseError,
        "the server lacks a command that the log needs; check rename-command in its configuration",
        "unknown command",
    ),
    _Kind(
        redis.InvalidResponse,
        "the server sent no valid answer; check that the URL of --store is that of a Redis server",
    ),
    _Kind(msgspec.DecodeError, FOREIGN),
)


def sentence(error: BaseException) -> str:
    """What happened, and which setting to look at."""
    if isinstance(error, NotUsable):
        return str(error)
    text = str(error)
    for each in (_cause(error), error):
        for kind in _KINDS:
            if isinstance(each, kind.error) and kind.words in text:
                return kind.sentence
    if isinstance(error, redis.ResponseError):
        return f"the server refused a command ({text.partition(' script: ')[0]}); check its version and configuration"
    return text or type(error).__name__


def is_full(error: BaseException) -> bool:
    """Whether the server is out of memory: it refuses writes, and can be read."""
    return sentence(error) == _FULL


def _cause(error: BaseException) -> BaseException | None:
    """The error of the operating system that redis-py reports as one of its own, if it says more."""
    context = error.__context__
    informative = ConnectionRefusedError, FileNotFoundError, PermissionError, socket.gaierror, ssl.SSLError
    return context if isinstance(error, redis.ConnectionError) and isinstance(context, informative) else None


class Problems:
    """One sentence for each part with a problem. ``server`` is the URL without passwords."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._by_part: dict[str, str] = {}

    @property
    def first(self) -> str | None:
        """Without a server out of memory: subscribers can be served."""
        return next((text for text in self._by_part.values() if not text.endswith(_FULL)), None)

    def note(self, part: str, error: BaseException) -> str:
        """Returns the sentence."""
        text = f"{self._server}: {sentence(error)}"
        if not self._by_part:
            logs.event(Event.LOG_TROUBLE, logging.WARNING, detail=text)
        self._by_part[part] = text
        return text

    def clear(self, part: str) -> None:
        if self._by_part.pop(part, None) is not None and not self._by_part:
            logs.event(Event.LOG_WORKS, logging.WARNING)
