"""What is dangerous about a configuration, or may be a mistake. What can only be a mistake is refused at the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from ..access.rules import ANY_KEY, ANYONE, Rule, Subscribe
from ..access.token_keys import TokenKeys
from ..config import Config
from ..exposure import KEY_CHARACTERS
from .overlap import shared_name
from .reach import is_loopback, public_addresses
from .table import publishers


class Finding(NamedTuple):
    """A sentence that says what to change. ``dangerous``: a warning; otherwise a note."""

    text: str
    dangerous: bool = True


def findings(config: Config, token_keys: TokenKeys | None) -> list[Finding]:
    """``token_keys``: None without any."""
    pages, publishing = public_addresses(config)
    return [
        *_publishing(config, publishing),
        *_subscribing(config, pages),
        *_patterns(config),
        *_keys(config),
        *_tokens(config, token_keys),
        *_pages(config, pages),
        *_figures(publishing),
        *_secrets(config, pages),
    ]


def _rules(config: Config) -> list[Rule]:
    return [*config.rules.rules, config.rules.default]


def _where(rule: Rule) -> str:
    return f"{rule.pattern.text} (line {rule.line})" if rule.line else "all channels without a rule"


def _publishing(config: Config, address: str) -> Iterator[Finding]:
    for rule in _rules(config):
        if rule.publish == ANYONE:
            who = f"anyone who reaches {address}" if address else "every program on this machine"
            yield Finding(f'{who} may publish to {_where(rule)}; with publish = "keys" it needs a key')


def _subscribing(config: Config, address: str) -> Iterator[Finding]:
    """Where the default is not open, an open rule was written on purpose."""
    if not address or config.rules.default.subscribe is not Subscribe.OPEN:
        return
    for rule in _rules(config):
        if rule.subscribe is Subscribe.OPEN:
            yield Finding(
                f"anyone who reaches {address} may subscribe to {_where(rule)}; set --subscribe to token, ask or"
                ' nobody, and subscribe = "open" for the public channels'
            )


def _patterns(config: Config) -> Iterator[Finding]:
    rules = config.rules.rules
    for rule in rules:
        if rule.pattern.ambiguous:
            yield Finding(
                f"{_where(rule)} has {{sub}} between two *: a channel that contains the names of two subscribers, each"
                " between separators, belongs to both; put literal text, or nothing, on one side"
            )
    for number, rule in enumerate(rules):
        for earlier in rules[:number]:
            yield from _overlap(earlier, rule)


def _overlap(earlier: Rule, later: Rule) -> Iterator[Finding]:
    """The channels that the later rule would protect better, except if the earlier one is its exception, on purpose."""
    subscribes = _STRICTNESS[earlier.subscribe] < _STRICTNESS[later.subscribe]
    publishes = _more_may_publish(earlier, later)
    if not (subscribes or publishes) or later.pattern.covers(earlier.pattern):
        return
    name = shared_name(earlier.pattern, later.pattern)
    if name and subscribes:
        yield _order(f'channels like {name} are "{earlier.subscribe.value}" by', earlier, later.subscribe.value, later)
    if name and publishes:
        yield _order(
            f'who may publish to channels like {name} is "{publishers(earlier)}" by', earlier, publishers(later), later
        )


def _more_may_publish(earlier: Rule, later: Rule) -> bool:
    """The earlier rule lets somebody publish whom the later one does not."""
    if ANYONE in (earlier.publish, later.publish):
        return later.publish != ANYONE
    return later.publish != ANY_KEY and (earlier.publish == ANY_KEY or not set(earlier.publish) <= set(later.publish))


def _order(what: str, earlier: Rule, otherwise: str, later: Rule) -> Finding:
    return Finding(
        f'{what} {_where(earlier)}, and would be "{otherwise}" by {_where(later)}; change their order if these channels'
        " need it"
    )


_STRICTNESS = {Subscribe.OPEN: 0, Subscribe.TOKEN: 1, Subscribe.ASK: 1, Subscribe.NOBODY: 2}


def _keys(config: Config) -> Iterator[Finding]:
    if len(config.publish_key) < KEY_CHARACTERS:
        yield Finding(
            f"the publish key has {len(config.publish_key)} characters, and may be guessed; replace it by one of at"
            f" least {KEY_CHARACTERS}: openssl rand -hex 32"
        )
    for rule in _rules(config):
        for name in rule.publish:
            yield from _named(config, rule, name)


def _named(config: Config, rule: Rule, name: str) -> Iterator[Finding]:
    """A rule's key that may not be able to publish there."""
    if rule.publish in (ANY_KEY, ANYONE):
        return
    key = next((key for key in config.keys if key.name == name), None)
    if key is None:
        yield Finding(
            f"{_where(rule)} is for key {name}, which is not in the configuration; nothing is wrong if it was added"
            " with pushcompat keys add",
            dangerous=False,
        )
    elif not any(shared_name(pattern, rule.pattern) for pattern in key.channels):
        yield Finding(
            f"{_where(rule)} is for key {name}, whose own channels are others; add {rule.pattern.text} to them",
            dangerous=False,
        )


def _tokens(config: Config, keys: TokenKeys | None) -> Iterator[Finding]:
    if keys is None:
        return
    for sentence in keys.skipped:
        yield Finding(sentence, dangerous=False)
    if not any(rule.subscribe is Subscribe.TOKEN for rule in _rules(config)):
        yield Finding('no channel needs a token, although there are token keys; set --subscribe or subscribe = "token"')
    if keys.shared and not config.tokens.audience:
        yield Finding(
            "tokens are signed by another service, and those that it issues for other applications are valid here too;"
            " set --token-audience"
        )


def _pages(config: Config, address: str) -> Iterator[Finding]:
    cookies = config.tokens.cookie or any(rule.subscribe is Subscribe.ASK for rule in _rules(config))
    anyones = [origin for origin in ("*", "null") if origin in config.cors_origins]
    if anyones and cookies:
        yield Finding(
            f"the cookies of pages that only --cors-origin {anyones[0]} allows do not count, because any site may have"
            " such pages; name the origins of yours",
            dangerous=False,
        )
    if config.demo and address:
        yield Finding(f"anyone who reaches {address} can post in the demo; omit --demo")


def _figures(address: str) -> Iterator[Finding]:
    if address:
        yield Finding(
            f"anyone who reaches {address} can read /metrics; --admin-listen puts it on an address of its own",
            dangerous=False,
        )


def _secrets(config: Config, address: str) -> Iterator[Finding]:
    for option in config.visible_secrets:
        yield Finding(f"--{option} shows its secret in the list of processes; use a file or the environment")
    if address and config.tls_cert is None and not config.trusted_proxies:
        yield Finding(
            f"connections to {address} are not encrypted, and show keys and tokens; set --tls-cert, or"
            " --trusted-proxies if a proxy encrypts them"
        )
    asked = urlsplit(config.authorize_url or "")
    if asked.scheme == "http" and not is_loopback(asked.hostname or ""):
        yield Finding(
            f"questions to {asked.hostname} are not encrypted, and show the cookies of subscribers; use https:// in"
            " --authorize-url"
        )
