from __future__ import annotations

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import ANY_KEY, Rule, Rules, Subscribe


def rule(text: str, **fields: object) -> Rule:
    return Rule(Pattern(text), **fields)  # type: ignore[arg-type]


def test_the_first_rule_that_matches_applies() -> None:
    rules = Rules(
        (
            rule("orders.vip.*"),
            rule("orders.*"),
            rule("*.7"),
        )
    )
    assert rules.of("orders.vip.7").pattern.text == "orders.vip.*"
    assert rules.of("orders.7").pattern.text == "orders.*"
    assert rules.of("users.7").pattern.text == "*.7"


def test_the_default_rule_applies_to_all_other_channels() -> None:
    default = Rule(Pattern("*"), subscribe=Subscribe.TOKEN)
    assert Rules((rule("orders.*"),), default).of("users").subscribe is Subscribe.TOKEN
    assert Rules((), default).of("users") is default


def test_without_rules_any_key_publishes_and_anyone_subscribes() -> None:
    applies = Rules().of("a")
    assert (applies.publish, applies.subscribe) == (ANY_KEY, Subscribe.OPEN)
    assert applies.history is applies.message_bytes is applies.ttl_s is None


def test_a_client_that_makes_up_names_fills_no_memory() -> None:
    rules = Rules((rule("orders.*"),))
    for number in range(10_000):
        assert rules.of(f"orders.{number}").pattern.text == "orders.*"
    assert len(rules._remembered) <= 4096


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"history": 5}, False),
        ({"message_bytes": 9}, True),
        ({"refetch_rate": 9.0}, False),
        ({"ttl_s": 9.0}, True),
    ],
)
def test_rules_that_leave_messages_as_they_are_need_not_be_asked_for_each(
    fields: dict[str, object], expected: bool
) -> None:
    assert (
        Rules(
            (
                rule("a"),
                rule("b", **fields),
            )
        ).change_messages
        is expected
    )


def test_a_spread_is_set_only_if_a_rule_has_a_rate() -> None:
    assert not Rules((rule("a", ttl_s=9.0),)).set_spreads
    assert Rules((rule("a"), rule("b", refetch_rate=9.0))).set_spreads


def test_no_rule_is_for_the_servers_own_channels() -> None:
    rules = Rules((rule("*", ttl_s=9.0, publish=("open",)),))
    assert rules.of("!access").ttl_s is None
    assert (rules.of("!access").publish, rules.of("!access").subscribe) == ((), Subscribe.NOBODY)
