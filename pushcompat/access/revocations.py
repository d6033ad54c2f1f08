"""Revocations: subscribers that are refused although their tokens are valid.

A revocation names a ``sub``, a ``jti``, a channel, or several of these, which must then all match. It applies to tokens
that were issued before it, and to those that do not say when. It ends when no such token can be valid any more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from ..errors import Unauthorized
from ..message import ACCESS_LOG, Message

KIND = "revoke"  # of an entry of the access log
_SWEEP_AT_LEAST = 1024
_REVOKED = "access was revoked; request a new token"


class Target(NamedTuple):
    """Whom a revocation applies to; an empty string: whatever it is."""

    sub: str = ""
    jti: str = ""
    channel: str = ""

    @property
    def key(self) -> str:
        """The key of its message: the same target has the same key, so that a repeat replaces it."""
        return f"{KIND}:{sha256(msgspec.json.encode(self)).hexdigest()[:32]}"


class _Document(msgspec.Struct, omit_defaults=True):
    """A target as it is stored."""

    sub: str = ""
    jti: str = ""
    channel: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Document).decode


class Revocation(NamedTuple):
    """``at``, ``until``: Unix seconds."""

    target: Target
    at: float
    until: float

    def refuses(self, issued_at: float | None, now: float) -> bool:
        return now < self.until and (issued_at is None or issued_at <= self.at)


class Revocations:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._found: dict[Target, Revocation] = {}
        self._sweep_at = _SWEEP_AT_LEAST
        self._listeners: list[Callable[[Revocation], None]] = []

    def __len__(self) -> int:
        return len(self._found)

    def on_revoked(self, listener: Callable[[Revocation], None]) -> None:
        """``listener`` is called with each revocation, to end what it applies to."""
        self._listeners.append(listener)

    def message(self, target: Target, expires_s: float) -> Message:
        """A revocation as a message of the access log. A repeat never ends earlier than the revocation it replaces."""
        earlier = self._found.get(target)
        if earlier is not None:
            expires_s = max(expires_s, earlier.until - self._clock())
        return Message(ACCESS_LOG, _encode(_Document(*target)), True, target.key, ttl_s=expires_s)

    def apply(self, message: Message) -> None:
        document = _decode(message.data)
        target = Target(document.sub, document.jti, document.channel)
        if not any(target):
            return  # it would apply to everybody
        at = (message.time_ms + 1) / 1000  # to the end of that millisecond
        until = math.inf if message.ttl_s is None else message.time_ms / 1000 + message.ttl_s
        earlier = self._found.get(target)
        if earlier is not None:
            at, until = max(at, earlier.at), max(until, earlier.until)
        revocation = Revocation(target, at, until)
        if revocation == earlier:
            return  # the log was read again
        self._found[target] = revocation
        if len(self._found) >= self._sweep_at:
            self._sweep()
        for listener in self._listeners:
            listener(revocation)

    def check(self, sub: str, jti: str, issued_at: float | None, names: Sequence[str]) -> None:
        """Raises Unauthorized if the subscriber ``is_refused``."""
        if self._found and self.is_refused(sub, jti, issued_at, names):
            raise Unauthorized(_REVOKED)

    def is_refused(self, sub: str, jti: str, issued_at: float | None, names: Sequence[str]) -> bool:
        """Whether a subscriber with that token is refused any of these channels. ``issued_at``: Unix seconds, None if
        unknown. For a subscriber without a token it is the time at which the application was asked.
        """
        now = self._clock()
        for target in _targets(sub, jti, names):
            revocation = self._found.get(target)
            if revocation is not None and revocation.refuses(issued_at, now):
                return True
        return False

    def _sweep(self) -> None:
        now = self._clock()
        self._found = {target: found for target, found in self._found.items() if found.until > now}
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._found))


def _targets(sub: str, jti: str, names: Sequence[str]) -> Iterator[Target]:
    """All that apply to this subscriber: a few for each channel, however many revocations there are."""
    whom = {(sub, ""), ("", jti), (sub, jti), ("", "")}
    for channel in ("", *names):
        for own_sub, own_jti in whom:
            yield Target(own_sub, own_jti, channel)
