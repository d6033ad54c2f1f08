from __future__ import annotations

import re
from math import inf
from pathlib import Path

import pytest

from pushcompat.access.rules import ANY_KEY, ANYONE, NO_ONE, Rules, Subscribe
from pushcompat.channel_tables import rules_from
from pushcompat.config_file import read_config
from pushcompat.errors import ConfigError


def rules(
    tmp_path: Path, text: str, publish: str = "keys", subscribe: str = "open", tokens: bool = True, asks: bool = True
) -> Rules:
    path = tmp_path / "push.toml"
    path.write_text(text)
    return rules_from(read_config(path, ())[1], publish, subscribe, tokens=tokens, asks=asks)


def test_a_table_is_a_rule(tmp_path: Path) -> None:
    (rule,) = rules(
        tmp_path,
        """
        [[channel]]
        pattern = "user:{sub}:*"
        publish = ["shop", "blog"]
        subscribe = "token"
        history = 5000
        history-age = "10m"
        message-limit = "4KiB"
        refetch-rate = 0.5
        ttl = "1h"
        """,
    ).rules
    assert (rule.pattern.text, rule.line) == ("user:{sub}:*", 2)
    assert (rule.publish, rule.subscribe) == (("shop", "blog"), Subscribe.TOKEN)
    assert (rule.history, rule.history_age_s, rule.ttl_s) == (5000, 600, 3600)
    assert (rule.message_bytes, rule.refetch_rate) == (4096, 0.5)


def test_what_a_table_does_not_say_is_as_the_options_say(tmp_path: Path) -> None:
    """A table that sets only a limit must not open a channel."""
    text = '[[channel]]\npattern = "a"'
    (rule,) = rules(tmp_path, text).rules
    assert (rule.publish, rule.subscribe) == (ANY_KEY, Subscribe.OPEN)
    (rule,) = rules(tmp_path, text, "open", "token").rules
    assert (rule.publish, rule.subscribe) == (ANYONE, Subscribe.TOKEN)
    limits = (rule.history, rule.history_age_s, rule.message_bytes, rule.refetch_rate, rule.ttl_s)
    assert limits == (None,) * 5


@pytest.mark.parametrize(
    ("text", "publish"), [('"keys"', ANY_KEY), ('"open"', ANYONE), ('"nobody"', NO_ONE), ("[]", NO_ONE)]
)
def test_anyone_any_key_or_nobody_may_publish(tmp_path: Path, text: str, publish: tuple[str, ...]) -> None:
    (rule,) = rules(tmp_path, f'[[channel]]\npattern = "a"\npublish = {text}').rules
    assert rule.publish == publish


def test_a_refetch_rate_of_the_server_can_be_switched_off(tmp_path: Path) -> None:
    (rule,) = rules(tmp_path, '[[channel]]\npattern = "a"\nrefetch-rate = "none"').rules
    assert rule.refetch_rate == inf


def test_a_sub_needs_subscribers_that_have_a_name_by_option_or_by_table(tmp_path: Path) -> None:
    text = '[[channel]]\npattern = "user:{sub}"\n'
    assert rules(tmp_path, text, subscribe="ask")
    with pytest.raises(ConfigError, match=r"line 3: .* needs subscribe"):
        rules(tmp_path, text + 'subscribe = "nobody"', subscribe="token")


def test_the_options_are_the_default_rule() -> None:
    rule = rules_from((), "open", "nobody", tokens=False, asks=False).default
    assert (rule.pattern.text, rule.publish, rule.subscribe) == ("*", ANYONE, Subscribe.NOBODY)


def test_subscribing_needs_what_the_server_can_check_unless_an_option_says_otherwise() -> None:
    def default(subscribe: str | None, tokens: bool, asks: bool) -> Subscribe:
        return rules_from((), "keys", subscribe, tokens=tokens, asks=asks).default.subscribe

    assert default(None, False, False) is Subscribe.OPEN
    assert default(None, True, False) is Subscribe.TOKEN
    assert default(None, False, True) is Subscribe.ASK
    assert default("open", True, False) is Subscribe.OPEN
    assert default("token", True, True) is Subscribe.TOKEN
    with pytest.raises(ConfigError, match="say which is for channels without a rule, with --subscribe token or"):
        default(None, True, True)


def test_a_rule_that_the_server_could_not_check_is_refused(tmp_path: Path) -> None:
    for who, option in {"token": "--token-key-file or $PUSHCOMPAT_TOKEN_KEY", "ask": "--authorize-url"}.items():
        with pytest.raises(ConfigError, match=re.escape(f'line 3: subscribe = "{who}" needs {option}')):
            rules(tmp_path, f'[[channel]]\npattern = "a"\nsubscribe = "{who}"', tokens=False, asks=False)
        with pytest.raises(ConfigError, match=re.escape(f"--subscribe {who} needs {option}")):
            rules(tmp_path, "", subscribe=who, tokens=False, asks=False)


ANY = '[[channel]]\npattern = "a.*"\n'


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[[channel]]\nttl = 1", 'line 1: [[channel]] without a pattern; write for example pattern = "orders.*"'),
        ("[[channel]]\nttl = 1\npattern = 7", "line 3: pattern must be a text like"),
        ('[[channel]]\npattern = ["a", "b"]', "line 2: pattern must be a text like"),
        ('[[channel]]\npattern = "a/b"', "line 2: pattern 'a/b': use the characters of channel names"),
        (ANY + "\nsubscribe = true", 'line 4: subscribe must be one of "open", "token", "ask", "nobody"'),
        (ANY + 'subscribe = ["token"]', "line 3: subscribe must be one of"),
        (ANY + 'publish = "shop"', 'line 3: publish must be "keys", "open", "nobody", or a list of names of keys'),
        (ANY + 'publish = ["a b"]', "line 3: publish: 'a b' is not a name of a key"),
        (ANY + 'publish = ["root"]', "line 3: the root key may publish everywhere, and is not in this list"),
        (ANY + "publish = [1]", "line 3: publish must be"),
        (ANY + 'publish = ["shop", "open"]', 'line 3: publish = ["open"] would be a key of that name; write "open"'),
        (ANY + "history = 0", "line 3: history: 0 is too small; the minimum is 1"),
        (ANY + "history = true", "line 3: history must be a count; examples: 100"),
        (ANY + "history = []", "line 3: history: '[]' is not a valid count"),
        (ANY + 'history_age = "5x"', "line 3: history-age: '5x' is not a valid duration; examples: 90s"),
        (ANY + 'message-limit = "1 apple"', "line 3: message-limit: '1 apple' is not a valid size"),
        (ANY + "ttl = 0", "line 3: ttl: 0 is too small"),
        (ANY + "refetch-rate = 0", "line 3: refetch-rate: 0 is too small"),
        (ANY + "histroy = 5", "line 3: unknown key 'histroy' in [[channel]]; did you mean history?"),
        (ANY + "colour = 5", "it may have pattern, publish, subscribe, history, history-age, message-limit, refetch"),
        ('[[channel]]\npattern = "user:{sub}"', 'needs subscribe = "token" or "ask"'),
        ('[[channel]]\nsubscribe = "open"\npattern = "{sub}"', "line 2: pattern '{sub}' is for the subscriber's own"),
        (ANY + ANY, "line 4: pattern 'a.*' is never used, because 'a.*' in line 1 matches the same channels"),
        (
            ANY + '[[channel]]\nttl = 9\npattern = "a.b.*"',
            "line 5: pattern 'a.b.*' is never used",
        ),
        ('[[channel]]\npattern = "*"\n' + ANY, "move it above that line, or remove it"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line_and_what_to_write_instead(
    tmp_path: Path, text: str, advice: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(advice)) as refusal:
        rules(tmp_path, text)
    assert str(refusal.value).startswith(f"{tmp_path}/push.toml line ")
    assert "\n" not in str(refusal.value)
