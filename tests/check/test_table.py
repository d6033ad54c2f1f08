from __future__ import annotations

from math import inf
from pathlib import Path

from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import Rule, Subscribe
from pushcompat.address import Address
from pushcompat.check.table import lines, rows
from pushcompat.limits import Limits, Retention

from .configs import config, hook, rule

OPEN = Rule(Pattern("*"), subscribe=Subscribe.OPEN)


def test_each_rule_is_a_row_and_the_default_the_last_one() -> None:
    table = rows(
        config(
            rule("board.*", 1, publish=("open",), subscribe=Subscribe.OPEN),
            rule("orders.*", 2, publish=("shop", "blog"), subscribe=Subscribe.TOKEN),
            rule("user:{sub}", 3, publish=(), subscribe=Subscribe.TOKEN),
            rule("chat.{sub}", 4, subscribe=Subscribe.ASK),
            rule("chat", 5, subscribe=Subscribe.ASK),
            default=Rule(Pattern("*"), subscribe=Subscribe.NOBODY),
        )
    )
    assert [row[:3] for row in table] == [
        ("board.*", "anyone", "anyone"),
        ("orders.*", "key shop, key blog", "token that names the channel"),
        ("user:{sub}", "root key only", "token of that sub"),
        ("chat.{sub}", "any key", "who the application allows as that sub"),
        ("chat", "any key", "who the application allows"),
        ("all others", "any key", "nobody"),
    ]


def test_what_is_kept_is_by_rule_and_otherwise_by_option() -> None:
    table = rows(
        config(
            rule("tokens.*", 1, history=5000, history_age_s=600),
            rule("a", 2, message_bytes=4096, ttl_s=90.5, refetch_rate=0.5),
            rule("b", 3, refetch_rate=inf),
            limits=Limits(retention=Retention(count=7, age_s=86400)),
        )
    )
    assert [row[3] for row in table] == [
        "5000 messages, 10m",
        "7 messages, 24h, at most 4KiB each, ttl 90.5s, refetch rate 0.5",
        "7 messages, 24h, no spread",
        "7 messages, 24h",
    ]


def test_the_columns_are_aligned_below_where_the_server_listens() -> None:
    assert lines(config(rule("a.*", 1, subscribe=Subscribe.OPEN), default=OPEN, cors_origins=("https://a", "*"))) == [
        "Listens on 127.0.0.1 port 8888, for pages of https://a, any origin.",
        "",
        "pattern     publish  subscribe  kept",
        "a.*         any key  anyone     100 messages, 1h",
        "all others  any key  anyone     100 messages, 1h",
    ]


def test_webhooks_that_publish_are_below_the_table() -> None:
    checked = config(hooks=(hook("code", "deploys", "all"),))
    assert lines(checked)[-2:] == ["", "/hooks/code publishes to deploys, all, verified as github"]


def test_all_addresses_are_named(tmp_path: Path) -> None:
    first = lines(config(unix_socket=tmp_path / "s"))[0]
    assert first == f"Listens on unix socket {tmp_path}/s, for pages of its own origin only."
    first = lines(config(admin_listen=Address("::1", 1)))[0]
    assert first.startswith("Listens on 127.0.0.1 port 8888 (publishing and administration: [::1]:1), for pages of")
