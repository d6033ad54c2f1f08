from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pushcompat.access.named_key import NamedKey
from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import ANY_KEY, ANYONE, NO_ONE, Rule, Subscribe
from pushcompat.access.token_keys import TokenKeys, load_token_keys
from pushcompat.access.token_settings import TokenSettings
from pushcompat.address import Address
from pushcompat.check.findings import findings
from pushcompat.config import Config

from .configs import config, rule

ADMIN = Address("127.0.0.1", 8889)
PUBLIC: dict[str, Any] = {"host": "0.0.0.0", "trusted_proxies": ("10.0.0.0/8",)}
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
        config(**PUBLIC, admin_listen=ADMIN),
        config(host="0.0.0.0", tls_cert=Path("cert.pem"), admin_listen=ADMIN),
        config(rule("board.*", 1, subscribe=Subscribe.OPEN), cors_origins=("*",), **PUBLIC, admin_listen=ADMIN),
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
    public = config(default=Rule(Pattern("*"), ANYONE, Subscribe.TOKEN), **PUBLIC)
    assert the_warning(public).startswith("anyone who reaches 0.0.0.0 port 8888 may publish to all channels")


def test_subscribing_without_a_decision_is_a_warning_on_a_public_address() -> None:
    checked = config(rule("a", 2, subscribe=Subscribe.TOKEN), default=OPEN, **PUBLIC)
    assert the_warning(checked).startswith("anyone who reaches 0.0.0.0 port 8888 may subscribe to all")
    assert not warnings(config(rule("a", 2, subscribe=Subscribe.TOKEN), default=OPEN))


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


@pytest.mark.parametrize(
    ("earlier", "later", "said"),
    [
        (ANY_KEY, ("shop",), '"any key" by *.public (line 1), and would be "key shop" by orders.* (line 2)'),
        (ANY_KEY, NO_ONE, '"any key" by *.public (line 1), and would be "root key only" by'),
        (("blog", "shop"), ("shop",), '"key blog, key shop" by *.public (line 1), and would be "key shop" by'),
    ],
)
def test_a_rule_before_one_that_lets_fewer_publish_is_a_warning(
    earlier: tuple[str, ...], later: tuple[str, ...], said: str
) -> None:
    checked = config(rule("*.public", 1, publish=earlier), rule("orders.*", 2, publish=later))
    assert the_warning(checked).startswith(f"who may publish to channels like orders.public is {said}")
    assert not warnings(config(rule("*.public", 1, publish=later), rule("orders.*", 2, publish=earlier)))
    assert not warnings(config(rule("orders.public", 1, publish=earlier), rule("orders.*", 2, publish=later)))


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


def test_a_key_that_is_limited_to_other_channels_than_its_rule_is_a_note() -> None:
    shop = NamedKey("shop", [Pattern("orders.*")], b"x" * 32)
    (text,) = notes(config(rule("stock.*", 5, publish=("shop",)), keys=(shop,)))
    assert text == "stock.* (line 5) is for key shop, whose own channels are others; add stock.* to them"
    assert not notes(config(rule("*.7", 5, publish=("shop",)), keys=(shop,)))


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
def test_cookies_with_pages_of_any_site_are_worth_a_note(origin: str) -> None:
    by_cookie = config(cors_origins=(origin,), tokens=TokenSettings(cookie="session"))
    asking = config(rule("a", 1, subscribe=Subscribe.ASK), cors_origins=(origin,))
    for checked in (by_cookie, asking):
        (note,) = notes(checked)
        assert note.startswith(f"the cookies of pages that only --cors-origin {origin} allows do not count")
        assert not warnings(checked)


def test_the_demo_on_a_public_address_is_a_warning() -> None:
    assert the_warning(config(demo=True, **PUBLIC)).endswith("omit --demo")
    assert not warnings(config(demo=True))


def test_publishing_on_an_address_of_its_own_is_as_public_as_that_address() -> None:
    private = config(default=Rule(Pattern("*"), ANYONE, Subscribe.TOKEN), admin_listen=Address("::1", 1), **PUBLIC)
    assert the_warning(private).startswith("every program on this machine may publish")


def test_figures_that_anyone_can_read_are_worth_a_note() -> None:
    (note,) = notes(config(**PUBLIC))
    assert note.startswith("anyone who reaches 0.0.0.0 port 8888 can read /metrics; --admin-listen")
    (note,) = notes(config(**PUBLIC, admin_listen=Address("192.0.2.1", 9)))
    assert note.startswith("anyone who reaches 192.0.2.1 port 9 can")
    assert not notes(config())


def test_secrets_that_are_sent_or_shown_in_the_clear_are_warnings() -> None:
    assert the_warning(config(visible_secrets=("publish-key",))).startswith("--publish-key shows its secret in the")
    assert the_warning(config(host="0.0.0.0")).startswith("connections to 0.0.0.0 port 8888 are not encrypted")
    assert the_warning(config(authorize_url="http://192.0.2.1/ask")).startswith("questions to 192.0.2.1 are not")
    for url in ("http://127.0.0.1:1/ask", "https://192.0.2.1/ask"):
        assert not warnings(config(authorize_url=url))
