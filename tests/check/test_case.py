from __future__ import annotations

import re
from hashlib import sha256

import pytest

from pushcompat.access.issuing import issue
from pushcompat.access.named_key import NamedKey
from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import ANYONE, Subscribe
from pushcompat.access.token_keys import load_token_keys
from pushcompat.access.tokens import Verifier
from pushcompat.check.case import explain
from pushcompat.config import Config

from .configs import config, hook, rule

SECRET = "s" * 32
VERIFIER = Verifier(load_token_keys((), SECRET))


def key(name: str, *channels: str) -> NamedKey:
    return NamedKey(name, [Pattern(text) for text in channels], sha256(name.encode()).digest())


CHECKED = config(
    rule("board", 1, publish=ANYONE, subscribe=Subscribe.OPEN),
    rule("user:{sub}:*", 2, subscribe=Subscribe.TOKEN),
    rule("user:*", 3, publish=("shop", "late"), subscribe=Subscribe.NOBODY),
    rule("chat.*", 4, publish=(), subscribe=Subscribe.ASK),
    keys=(key("shop", "*"), key("blog", "posts.*", "user:*")),
    hooks=(hook("code", "chat.1", "chat.2"),),
)


def explained(channel: str, checked: Config = CHECKED) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in explain(checked, channel, None, None).lines)


def test_the_rule_that_applies_is_named_and_those_that_it_hides() -> None:
    assert explained("user:ann:x")["channel user:ann:x"] == (
        "user:{sub}:* (line 2) is the first rule that matches; user:* (line 3) would match too"
    )
    assert explained("user:ann")["channel user:ann"] == "user:* (line 3) is the first rule that matches"
    assert explained("a")["channel a"] == "no rule matches, so --publish and --subscribe apply"


def test_the_publishers_are_those_that_the_server_would_accept() -> None:
    added = "keys that were added for this channel (pushcompat keys list)"
    assert explained("board")["publish"] == "anyone"
    assert explained("user:ann:x")["publish"] == f"root key, key shop, key blog, {added}"
    assert explained("user:ann")["publish"] == "root key, key shop, key late if it was added for this channel"
    assert explained("chat.1")["publish"] == "root key, /hooks/code"
    assert explained("chat.3")["publish"] == "root key"
    assert explained("a")["publish"] == f"root key, key shop, {added}"


def test_subscribers_and_what_is_kept_are_as_in_the_table() -> None:
    assert explained("user:ann:x")["subscribe"] == "token of that sub"
    assert explained("user:ann:x")["kept"] == "100 messages, 1h"


@pytest.mark.parametrize(
    ("channel", "claims", "allowed", "verdict"),
    [
        ("user:ann:x", {"sub": "ann"}, True, r"may subscribe as ann until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, unless"),
        ("user:bob:x", {"sub": "ann"}, False, "may not subscribe: the token does not allow channel user:bob:x"),
        ("user:ann:x", {"sub": "ann", "channels": ["a"]}, False, "may not subscribe: the token does not allow"),
        ("a", {"channels": ["a"]}, True, r"may subscribe without a name \(sub\) until"),
        ("a", {"sub": "ann"}, False, "may not subscribe: the token does not allow channel a"),
        ("a", {"channels": ["a"], "expires_s": -60}, False, "may not subscribe: the token has expired"),
        ("user:ann", {"sub": "ann", "channels": ["*"]}, False, "may not subscribe: nobody may subscribe"),
        ("board", {"sub": "ann"}, True, "may subscribe as ann"),
        ("board", {"expires_s": -60}, False, "may not subscribe: the token has expired"),
        ("chat.1", {"sub": "ann"}, None, "is sent to the application, which decides"),
    ],
)
def test_a_token_suffices_if_the_server_would_admit_it(
    channel: str, claims: dict[str, object], allowed: bool | None, verdict: str
) -> None:
    token = issue(SECRET, **{"expires_s": 60.0, **claims})  # type: ignore[arg-type]
    case = explain(CHECKED, channel, token, VERIFIER)
    assert case.allowed is allowed
    assert re.match(f"this token: {verdict}", case.lines[-1])
    assert token not in "\n".join(case.lines)


def test_without_token_keys_a_token_does_not_matter() -> None:
    case = explain(CHECKED, "board", "x", None)
    assert (case.allowed, case.lines[-1]) == (
        True, "this token: is not looked at, because the server has no token keys",
    )  # fmt: skip
