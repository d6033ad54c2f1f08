"""``[[channel]]`` tables of the configuration file become the rules by channel.

What can only be a mistake is an error: a server that started nevertheless would apply other rules than its operator
believes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from .access.named_key import ROOT, checked_name
from .access.patterns import Pattern
from .access.rules import ANY_KEY, ANYONE, NO_ONE, Rule, Rules, Subscribe
from .config_file import Table
from .errors import ConfigError
from .units import BYTES, COUNT, RATE, SECONDS, Unit

PUBLISH = {"keys": ANY_KEY, "open": ANYONE, "nobody": NO_ONE}
_SUBSCRIBE = ", ".join(f'"{who.value}"' for who in Subscribe)


def rules_from(
    tables: Iterable[Table], publish: str = "keys", subscribe: str | None = None, *, tokens: bool, asks: bool
) -> Rules:
    """The rules of the tables, in their order; the options ``publish`` and ``subscribe`` are the default rule.
    ``tokens``: there are keys to verify tokens with. ``asks``: the application can be asked. Raises ConfigError, with
    the line and what to write instead.
    """
    lacks = {} if tokens else {Subscribe.TOKEN: "--token-key-file or $PUSHCOMPAT_TOKEN_KEY"}
    lacks |= {} if asks else {Subscribe.ASK: "--authorize-url"}
    default = Rule(Pattern("*"), PUBLISH[publish], _default_subscribe(subscribe, tokens, asks))
    if default.subscribe in lacks:
        raise ConfigError(f"--subscribe {subscribe} needs {lacks[default.subscribe]}")
    rules: list[Rule] = []
    for table in tables:
        rule = _rule(table, default)
        if rule.subscribe in lacks:
            raise table.error(f'subscribe = "{rule.subscribe.value}" needs {lacks[rule.subscribe]}', "subscribe")
        _check_is_used(table, rule, rules)
        rules.append(rule)
    return Rules(tuple(rules), default)


def _default_subscribe(given: str | None, tokens: bool, asks: bool) -> Subscribe:
    """By option; without it, as the server can check. Raises ConfigError."""
    if given is not None:
        return Subscribe(given)
    if tokens and asks:
        raise ConfigError(
            "both token keys and --authorize-url are set: say which is for channels without a rule, with --subscribe"
            " token or --subscribe ask"
        )
    if tokens:
        return Subscribe.TOKEN
    return Subscribe.ASK if asks else Subscribe.OPEN


def _check_is_used(table: Table, rule: Rule, before: Sequence[Rule]) -> None:
    """An earlier rule for the same channels would leave the channels less protected than this one says."""
    for earlier in before:
        if earlier.pattern.covers(rule.pattern):
            raise table.error(
                f"pattern {rule.pattern.text!r} is never used, because {earlier.pattern.text!r} in line {earlier.line}"
                " matches the same channels and the first match wins; move it above that line, or remove it",
                "pattern",
            )


def _rule(table: Table, default: Rule) -> Rule:
    table.check_keys(("pattern", *_READERS))
    if "pattern" not in table.values:
        raise table.error('[[channel]] without a pattern; write for example pattern = "orders.*"')
    pattern = _pattern(table, table.values["pattern"])
    fields: dict[str, Any] = {"publish": default.publish, "subscribe": default.subscribe}
    for key, (name, read) in _READERS.items():
        if key in table.values:
            fields[name] = read(table, key, table.values[key])
    rule = Rule(pattern, line=table.line, **fields)
    if pattern.uses_sub and rule.subscribe in (Subscribe.OPEN, Subscribe.NOBODY):
        raise table.error(
            f'pattern {pattern.text!r} is for the subscriber\'s own name, and needs subscribe = "token" or "ask", which'
            " tell it",
            "subscribe" if "subscribe" in table.values else "pattern",
        )
    return rule


def _pattern(table: Table, value: Any) -> Pattern:
    if not isinstance(value, str):
        raise table.error('pattern must be a text like "orders.*"; write one [[channel]] for each', "pattern")
    try:
        return Pattern(value)
    except ValueError as error:
        raise table.error(str(error), "pattern") from None


def _publish(table: Table, key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and value in PUBLISH:
        return PUBLISH[value]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise table.error('publish must be "keys", "open", "nobody", or a list of names of keys like ["shop"]', key)
    for name in value:
        if name in PUBLISH:
            raise table.error(f'publish = ["{name}"] would be a key of that name; write "{name}"', key)
        if name == ROOT:
            raise table.error(
                'the root key may publish everywhere, and is not in this list; write "nobody" for it', key
            )
        try:
            checked_name(name)
        except ValueError as error:
            raise table.error(f"publish: {error}", key) from None
    return tuple(value)


def _subscribe(table: Table, key: str, value: Any) -> Subscribe:
    try:
        return Subscribe(value)
    except ValueError:
        raise table.error(f"subscribe must be one of {_SUBSCRIBE}", key) from None


def _quantity(unit: Unit, minimum: float) -> Callable[[Table, str, Any], float]:
    def read(table: Table, key: str, value: Any) -> float:
        if isinstance(value, bool):
            raise table.error(f"{key} must be a {unit.metavar.lower()}; examples: {unit.example}", key)
        try:
            return unit.parse(value, minimum)
        except ValueError as error:
            raise table.error(f"{key}: {error}", key) from None

    return read


def _rate(table: Table, key: str, value: Any) -> float:
    return inf if value == "none" else _quantity(RATE, 0.001)(table, key, value)


_READERS: dict[str, tuple[str, Callable[[Table, str, Any], Any]]] = {
    "publish": ("publish", _publish),
    "subscribe": ("subscribe", _subscribe),
    "history": ("history", _quantity(COUNT, 1)),
    "history-age": ("history_age_s", _quantity(SECONDS, 1)),
    "message-limit": ("message_bytes", _quantity(BYTES, 1)),
    "refetch-rate": ("refetch_rate", _rate),
    "ttl": ("ttl_s", _quantity(SECONDS, 0.001)),
}
