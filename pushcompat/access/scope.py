"""The channels that a publisher may publish to: those of its key's patterns, as far as their rules allow it."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Forbidden, Unauthorized
from .keys import NEEDS_KEY
from .named_key import NamedKey
from .rules import ANY_KEY, ANYONE, Rules

_REMEMBERED = 1024  # channels


class Scope:
    """``key`` None: a publisher without a key, which may publish where anyone may. ``allowed``: channels that were
    allowed lately.
    """

    __slots__ = ("_key", "_rules", "allowed")

    def __init__(self, key: NamedKey | None, rules: Rules) -> None:
        self._key = key
        self._rules = rules
        self.allowed: set[str] = set()

    def allows(self, channel: str) -> bool:
        if channel in self.allowed:
            return True
        if not self._decide(channel):
            return False
        if len(self.allowed) >= _REMEMBERED:
            self.allowed.clear()
        self.allowed.add(channel)
        return True

    def check(self, channels: Iterable[str]) -> None:
        """Raises Forbidden, or Unauthorized without a key, if one of the channels is not allowed."""
        for channel in channels:
            if not self.allows(channel):
                raise self._refusal(channel)

    def _decide(self, channel: str) -> bool:
        publish = self._rules.of(channel).publish
        if self._key is None:
            return publish == ANYONE
        return self._key.covers(channel) and (publish in (ANY_KEY, ANYONE) or self._key.name in publish)

    def _refusal(self, channel: str) -> Forbidden | Unauthorized:
        if self._key is None:
            return Unauthorized(NEEDS_KEY)
        cause = "the rule of this channel names other keys"
        if not self._key.covers(channel):
            cause = f"its channels are {', '.join([pattern.text for pattern in self._key.channels])}"
        return Forbidden(f"key {self._key.name} may not publish to channel {channel}: {cause}")
