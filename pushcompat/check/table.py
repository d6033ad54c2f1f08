"""The rules as a table: pattern, who publishes, who subscribes, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from ..access.rules import ANY_KEY, ANYONE, Rule, Subscribe
from ..config import Config
from ..limits import Limits
from ..units import BYTES, SECONDS

Row = tuple[str, ...]
_HEADINGS = "pattern", "publish", "subscribe", "kept"
_SUBSCRIBERS = {
    Subscribe.OPEN: "anyone",
    Subscribe.TOKEN: "token that names the channel",
    Subscribe.ASK: "who the application allows",
    Subscribe.NOBODY: "nobody",
}
_NAMED = {Subscribe.TOKEN: "token of that sub", Subscribe.ASK: "who the application allows as that sub"}


def lines(config: Config) -> list[str]:
    """Where the server listens, for whom, and all rules in their order."""
    listens = f"unix socket {config.unix_socket}" if config.unix_socket else f"{config.host} port {config.port}"
    if config.admin_listen is not None:
        listens += f" (publishing and administration: {config.admin_listen})"
    pages = ", ".join(config.cors_origins).replace("*", "any origin") or "its own origin only"
    hooks = [
        f"/hooks/{hook.name} publishes to {', '.join(hook.channels)}, verified as {hook.provider.name}"
        for hook in config.hooks
    ]
    table = _aligned([_HEADINGS, *rows(config)])
    return [f"Listens on {listens}, for pages of {pages}.", "", *table, *([""] if hooks else []), *hooks]


def rows(config: Config) -> list[Row]:
    rules = config.rules
    return [_row(rule, config.limits) for rule in rules.rules] + [_row(rules.default, config.limits)]


def _row(rule: Rule, limits: Limits) -> Row:
    name = rule.pattern.text if rule.line else "all others"
    return name, publishers(rule), subscribers(rule), kept(rule, limits)


def publishers(rule: Rule) -> str:
    if rule.publish == ANYONE:
        return "anyone"
    if rule.publish == ANY_KEY:
        return "any key"
    return ", ".join([f"key {name}" for name in rule.publish]) or "root key only"


def subscribers(rule: Rule) -> str:
    return (_NAMED if rule.pattern.uses_sub else _SUBSCRIBERS)[rule.subscribe]


def kept(rule: Rule, limits: Limits) -> str:
    """For example ``100 messages, 1h``, and what else differs from the server's limits."""
    retention = limits.retention
    parts = [f"{rule.history or retention.count} messages", _duration(rule.history_age_s or retention.age_s)]
    if rule.message_bytes is not None:
        parts.append(f"at most {BYTES.format(rule.message_bytes)} each")
    if rule.ttl_s is not None:
        parts.append(f"ttl {_duration(rule.ttl_s)}")
    if rule.refetch_rate is not None:
        parts.append("no spread" if rule.refetch_rate == inf else f"refetch rate {rule.refetch_rate:g}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    text = SECONDS.format(seconds)
    return text if text[-1].isalpha() else f"{text}s"


def _aligned(table: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]).rstrip() for row in table]
