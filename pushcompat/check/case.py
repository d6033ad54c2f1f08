"""One channel explained: which rule applies and why, who may publish and subscribe, and whether a token suffices."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import NamedTuple

from ..access.grant import FOREVER
from ..access.rules import ANY_KEY, ANYONE, Rule, Subscribe
from ..access.scope import Scope
from ..access.subscribers import Subscribers
from ..access.tokens import Verifier
from ..config import Config
from ..errors import RequestError
from ..wire.request import parse_head
from .table import kept, subscribers


class Case(NamedTuple):
    """``allowed``: whether the token suffices to subscribe. None: no token was given, or the application decides."""

    lines: list[str]
    allowed: bool | None = None


def explain(config: Config, channel: str, token: str | None, verifier: Verifier | None) -> Case:
    """``channel``: a valid name. ``verifier``: None without token keys."""
    rule = config.rules.of(channel)
    lines = [
        f"channel {channel}: {_why(config, channel, rule)}",
        f"publish: {', '.join(_publishers(config, channel, rule))}",
        f"subscribe: {subscribers(rule)}",
        f"kept: {kept(rule, config.limits)}",
    ]
    if token is None:
        return Case(lines)
    allowed, verdict = _decide(config, rule, channel, token, verifier)
    return Case([*lines, f"this token: {verdict}"], allowed)


def _why(config: Config, channel: str, rule: Rule) -> str:
    matching = [each for each in config.rules.rules if each.pattern.matches(channel)]
    if not matching:
        return "no rule matches, so --publish and --subscribe apply"
    others = [f"{each.pattern.text} (line {each.line})" for each in matching[1:]]
    unused = f"; {', '.join(others)} would match too" if others else ""
    return f"{rule.pattern.text} (line {rule.line}) is the first rule that matches{unused}"


def _publishers(config: Config, channel: str, rule: Rule) -> list[str]:
    if rule.publish == ANYONE:
        return ["anyone"]
    keys = [f"key {key.name}" for key in config.keys if Scope(key, config.rules).allows(channel)]
    hooks = [f"/hooks/{hook.name}" for hook in config.hooks if channel in hook.channels]
    return ["root key", *keys, *hooks, *_added(config, rule)]


def _added(config: Config, rule: Rule) -> list[str]:
    """Keys that only the log knows."""
    if rule.publish == ANY_KEY:
        return ["keys that were added for this channel (pushcompat keys list)"]
    configured = {key.name for key in config.keys}
    return [f"key {name} if it was added for this channel" for name in rule.publish if name not in configured]


def _decide(config: Config, rule: Rule, channel: str, token: str, verifier: Verifier | None) -> tuple[bool | None, str]:
    """As the server would, for a request with this token."""
    if rule.subscribe is Subscribe.ASK:
        return None, "is sent to the application, which decides"
    if verifier is None:
        return rule.subscribe is Subscribe.OPEN, "is not looked at, because the server has no token keys"
    admission = Subscribers()
    admission.configure(config.rules, verifier)
    request = parse_head(f"GET / HTTP/1.1\r\nHost: check\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    try:
        admission.verify(request, (channel,))
        grant = admission.admit(request, (channel,), b"", "")
    except RequestError as refused:
        return False, f"may not subscribe: {refused.detail}"
    assert grant is not None
    who = f"as {grant.sub}" if grant.sub else "without a name (sub)"
    return True, f"may subscribe {who} until {_date(grant.until)}, unless it was revoked"


def _date(tick: int) -> str:
    """A tick of the monotonic clock on the wall clock."""
    if tick >= FOREVER:
        return "for ever"
    return f"{datetime.fromtimestamp(time.time() + tick - time.monotonic(), UTC):%Y-%m-%d %H:%M:%S} UTC"
