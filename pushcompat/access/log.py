"""The access log: what changes while the server runs about who may do what, in the one log that all processes share.

It is the channel ``ACCESS_LOG``. Its messages are JSON documents with a key: ``revoke:…`` is a revocation, ``key:…`` a
publish key. So each change reaches all processes at once and in order, and outlives a restart as messages do. Only a
later message with the same key and the message's ttl remove one: number, age and size of the retained messages do not
apply. Instead the number of entries is limited.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping

from ..errors import StoreFull
from ..message import Message

MOST_ENTRIES = 100_000  # of at most a few KiB each; nothing else removes them
_SWEEP_AT_LEAST = 1024
_FULL = (
    f"the access log is full: it has {MOST_ENTRIES} revocations and keys; revoke with a shorter expires,"
    " and wait until earlier revocations have expired"
)

Apply = Callable[[Message], None]


class AccessLog:
    """``kinds``: what applies a message, by the part of its key before the colon. Unknown kinds are ignored: processes
    of a later version may share the log.
    """

    def __init__(self, kinds: Mapping[str, Apply], clock: Callable[[], float] = time.time) -> None:
        self._kinds = dict(kinds)
        self._clock = clock
        self._until: dict[str, float] = {}  # by key: Unix seconds
        self._sweep_at = _SWEEP_AT_LEAST

    def load(self, messages: Iterable[Message]) -> None:
        """The retained messages, at the start and whenever the log was read again. What only this process knows stays
        in force: the log may have lost it.
        """
        for message in messages:
            self.apply(message)

    def apply(self, message: Message) -> None:
        key = message.key or ""
        ttl_s = math.inf if message.ttl_s is None else message.ttl_s
        self._until.pop(key, None)
        self._until[key] = message.time_ms / 1000 + ttl_s
        if len(self._until) >= self._sweep_at:
            self._sweep()
        apply = self._kinds.get(key.partition(":")[0])
        if apply is not None:
            apply(message)

    def check_room(self, key: str) -> None:
        """Raises StoreFull if there is no room for another entry."""
        if len(self._until) < MOST_ENTRIES or key in self._until:
            return
        self._sweep()
        if len(self._until) >= MOST_ENTRIES:
            raise StoreFull(_FULL)

    def _sweep(self) -> None:
        """Forgets entries that have expired."""
        now = self._clock()
        self._until = {key: until for key, until in self._until.items() if until > now}
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._until))
