"""The URL of a Redis store: read without its package, refused in words, and shown without passwords."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pushcompat.errors import ConfigError
from pushcompat.limits import Retention
from pushcompat.store import open_store
from pushcompat.store.redis.urls import parse


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://cache", {"host": "cache", "port": 6379, "db": 0}),
        ("redis://cache:7000/3", {"host": "cache", "port": 7000, "db": 3}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000, "db": 0}),
        ("redis://", {"host": "localhost", "port": 6379, "db": 0}),
        ("redis://me:s%40c@cache", {"host": "cache", "port": 6379, "db": 0, "username": "me", "password": "s@c"}),
        ("redis://:pw@cache", {"host": "cache", "port": 6379, "db": 0, "password": "pw"}),
        ("rediss://cache?ssl_ca_certs=/ca", {"host": "cache", "port": 6379, "db": 0, "ssl_ca_certs": "/ca"}),
        ("redis+unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        ("redis+sentinel://:pw@a,b:7/main/1", {"db": 1, "password": "pw"}),
    ],
)
def test_a_url_says_where_the_server_is_and_who_we_are(url: str, options: dict[str, Any]) -> None:
    assert parse(url).options == options


def test_a_url_says_which_keys_are_ours_and_how_many_replicas_to_wait_for() -> None:
    address = parse("redis://cache?prefix=push:2&wait=1")
    assert (address.prefix, address.wait, address.tls) == ("push:2", 1, False)
    assert parse("rediss://cache").tls
    assert (parse("redis://cache").prefix, parse("redis://cache").wait) == ("pushcompat", 0)


def test_sentinels_are_listed_before_the_name_that_they_know_the_server_by() -> None:
    address = parse("redis+sentinel://a,b:7,[::1]:8/main?sentinel_password=s3cret&ssl=1")
    assert (address.sentinels, address.service) == ((("a", 26379), ("b", 7), ("::1", 8)), "main")
    assert (address.sentinel_options, address.tls) == ({"password": "s3cret"}, True)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("redis://cache?wait=many", "wait must be the number of replicas"),
        ("redis://cache?prefix=a{b", "prefix must be 1 to 64 letters"),
        ("redis://cache?size=1", "unknown parameter size; allowed: prefix, wait"),
        ("redis://cache?", None),
        ("redis://cache?prefix", "this is not a URL"),
        ("redis://cache/1/2", "the path is the number of the database"),
        ("redis://cache/one", "the database must be a number"),
        ("redis://cache:port", "the server must be HOST:PORT"),
        ("redis://cache:70000", "the server must be HOST:PORT"),
        ("redis://[::1", "the server must be HOST:PORT"),
        ("redis://cache#1", "this is not a URL"),
        ("redis+sentinel://cache", "Sentinels are redis+sentinel://HOST:PORT"),
        ("redis+unix://cache/run", "a socket is redis+unix:///PATH"),
    ],
)
def test_invalid_urls_are_refused_with_what_to_write(url: str, advice: str | None) -> None:
    if advice is None:
        assert parse(url)
        return
    with pytest.raises(ConfigError) as refusal:
        open_store(url, Retention(), Path())
    assert str(refusal.value).startswith(f"--store {url!r}: {advice}")


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:s3cret@cache/one",
        "redis://:s3cret@cache:port",
        "redis://:s3cret/@cache",
        "redis://me:s3@cret:s3cret@cache/one",
        "redis+sentinel://a?sentinel_password=s3cret",
        "radis://:s3cret@cache",
    ],
)
def test_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_store(url, Retention(), Path())
    assert "s3cret" not in str(refusal.value)
    assert "***" in str(refusal.value)
    assert "s3cret" not in repr(parse("redis://me:s3cret@cache"))


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pushcompat.store.redis.")]:
        if not name.endswith(".urls"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in [name for name in sys.modules if name.startswith("redis.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'pushcompat\[redis\]'"):
        open_store("redis://cache", Retention(), Path())
