"""Rules by channel: who may publish and subscribe, and what applies to the channel's messages.

The first rule whose pattern matches a channel applies; for all other channels, the default rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .patterns import Pattern

_REMEMBERED = 4096  # names, of at most 128 characters


class Subscribe(Enum):
    """Who may subscribe."""

    OPEN = "open"  # anyone
    TOKEN = "token"  # those whose token names the channel
    ASK = "ask"  # those whom the application allows
    NOBODY = "nobody"


ANY_KEY = ("keys",)
ANYONE = ("open",)
NO_ONE: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """``publish``: the names of the keys that may publish; ANY_KEY, ANYONE, or NO_ONE. The limits: None is the
    server's own. ``refetch_rate``: refetches a second; ``inf`` for no spread. ``line``: in the configuration file; 0
    for the default rule.
    """

    pattern: Pattern
    publish: tuple[str, ...] = ANY_KEY
    subscribe: Subscribe = Subscribe.OPEN
    history: int | None = None
    history_age_s: float | None = None
    message_bytes: int | None = None
    refetch_rate: float | None = None
    ttl_s: float | None = None
    line: int = 0

    @property
    def changes_messages(self) -> bool:
        """It has a limit or a default for messages of its own."""
        return self.message_bytes is not None or self.ttl_s is not None


RESERVED = "!"  # begins the names of the server's own channels, which no request and no pattern can name
_OF_SERVER = Rule(Pattern("*"), NO_ONE, Subscribe.NOBODY)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in their order, and the default rule."""

    rules: tuple[Rule, ...] = ()
    default: Rule = Rule(Pattern("*"))
    _remembered: dict[str, Rule] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def change_messages(self) -> bool:
        return any(rule.changes_messages for rule in self.rules)

    @property
    def set_spreads(self) -> bool:
        return any(rule.refetch_rate is not None for rule in self.rules)

    def of(self, name: str) -> Rule:
        """The rule of a channel. 0.1 µs for a channel that was asked for lately."""
        if not self.rules:
            return self.default
        rule = self._remembered.get(name)
        if rule is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            rule = self._remembered[name] = self._find(name)
        return rule

    def _find(self, name: str) -> Rule:
        if name.startswith(RESERVED):
            return _OF_SERVER
        for rule in self.rules:
            if rule.pattern.matches(name):
                return rule
        return self.default


class HistoryRules:
    """How much history channels have by their rules (``limits.ByChannel``). Stores and the hub ask it."""

    def __init__(self, rules: Rules) -> None:
        self.replace(rules)

    def replace(self, rules: Rules) -> None:
        self._rules = rules
        self.exist = any(rule.history is not None or rule.history_age_s is not None for rule in rules.rules)

    def of(self, channel: str) -> tuple[int | None, float | None]:
        rule = self._rules.of(channel)
        return rule.history, rule.history_age_s
