from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import ANYONE, Rule, Subscribe
from pushcompat.access.token_keys import TokenKeys, load_token_keys
from pushcompat.access.token_settings import TokenSettings
from pushcompat.check.findings import findings, is_public
from pushcompat.config import Config

from .configs import config, rule

OPEN = Rule(Pattern("*"), subscribe=Subscribe.OPEN)
TOKENS = load_token_keys((), "s" * 32)


def warnings(checked: Config, keys: TokenKeys | None = TOKENS) -> list[str]:
    return [finding.text for finding in findings(checked, keys) if finding.dangerous]


def notes(checked: Config, keys: TokenKeys | None = TOKENS) -> list[str]:
    return [finding.text for finding in findings(checked, keys) if not finding.dangerous]


def the_warning(checked: Config, keys: TokenKeys | None = TOKENS) -> str:
    (text,) = warnings(checked, keys)
    return text


@pytest.mark.parametrize(
    "fine",
    [
        config(),
        config(host="0.0.0.0"),
        config(rule("board.*", 1, subscribe=Subscribe.OPEN), host="0.0.0.0", cors_origins=("*",)),
        config(rule("a:*:{sub}", 1, subscribe=Subscribe.TOKEN), rule("a:*", 2, subscribe=Subscribe.NOBODY)),
    ],
)
def test_a_careful_configuration_has_no_findings(fine: Config) -> None:
    assert findings(fine, TOKENS) == []


def test_the_defaults_on_this_machine_have_no_findings() -> None:
    assert findings(config(default=OPEN), None) == []


def test_open_publishing_is_a_warning_everywhere() -> None:
    local = config(rule("a.*", 3, publish=ANYONE))
    assert the_warning(local).startswith("every program on this machine may publish to a.* (line 3)")
    public = config(default=Rule(Pattern("*"), ANYONE, Subscribe.TOKEN), host="::")
    assert the_warning(public).startswith("anyone who reaches :: may publish to all channels without a rule")


def test_subscribing_without_a_decision_is_a_warning_on_a_public_address() -> None:
    checked = config(rule("a", 2, subscribe=Subscribe.TOKEN), default=OPEN, host="0.0.0.0")
    assert the_warning(checked).startswith("anyone who reaches 0.0.0.0 may subscribe to all channels without a rule")
    assert not warnings(config(rule("a", 2, subscribe=Subscribe.TOKEN), default=OPEN))


@pytest.mark.parametrize(
    ("fields", "public"),
    [
        ({"host": "127.0.0.1"}, False),
        ({"host": "127.8.0.1"}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.0.2.1"}, True),
        ({"host": "no-such-host.invalid"}, True),
        ({"host": "0.0.0.0", "unix_socket": Path("/tmp/x.sock")}, False),
    ],
)
def test_every_address_that_is_not_loopback_is_public(fields: dict[str, Any], public: bool) -> None:
    assert is_public(config(**fields)) == public


def test_a_sub_between_two_stars_is_a_warning() -> None:
    checked = config(rule("a:*:{sub}:*", 4, subscribe=Subscribe.TOKEN))
    assert the_warning(checked).startswith("a:*:{sub}:* (line 4) has {sub} between two *")


def test_a_rule_before_a_stricter_one_for_some_of_its_channels_is_a_warning() -> None:
    checked = config(
        rule("*.public", 1, subscribe=Subscribe.OPEN),
        rule("secret.*", 2, subscribe=Subscribe.NOBODY),
    )
    text = the_warning(checked)
    assert text.startswith('channels like secret.public are "open" by *.public (line 1), and would be "nobody" by')


def test_an_exception_before_a_stricter_rule_for_all_of_its_channels_is_none() -> None:
    checked = config(
        rule("secret.public", 1, subscribe=Subscribe.OPEN),
        rule("secret.*", 2, subscribe=Subscribe.NOBODY),
        rule("*.other", 3, subscribe=Subscribe.TOKEN),
    )
    assert not warnings(checked)


def test_a_short_publish_key_is_a_warning() -> None:
    assert the_warning(config(publish_key="x" * 31)).startswith("the publish key has 31 characters")


def test_a_key_that_is_not_in_the_configuration_is_a_note() -> None:
    checked = config(rule("a", 5, publish=("shop",)))
    assert not warnings(checked)
    (text,) = notes(checked)
    assert text.startswith("a (line 5) is for key shop, which is not in the configuration")


def test_token_keys_that_no_channel_needs_are_a_warning() -> None:
    assert the_warning(config(default=OPEN)).startswith("no channel needs a token, although there are token keys")


def test_tokens_of_another_service_need_an_audience(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},'
        ' {"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
    )
    shared = load_token_keys([keys])
    assert the_warning(config(), shared).endswith("are valid here too; set --token-audience")
    assert notes(config(), shared) == shared.skipped != []
    assert not warnings(config(tokens=TokenSettings(audience=("push",))), shared)


@pytest.mark.parametrize("origin", ["*", "null"])
def test_cookies_with_pages_of_any_site_are_a_warning(origin: str) -> None:
    by_cookie = config(cors_origins=(origin,), tokens=TokenSettings(cookie="session"))
    asking = config(rule("a", 1, subscribe=Subscribe.ASK), cors_origins=(origin,))
    for checked in (by_cookie, asking):
        assert the_warning(checked).startswith(f"with --cors-origin {origin} the pages of any site may subscribe")


def test_the_demo_on_a_public_address_is_a_warning() -> None:
    assert the_warning(config(demo=True, host="0.0.0.0")).endswith("omit --demo")
    assert not warnings(config(demo=True))
