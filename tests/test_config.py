from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import Rule, Rules
from pushcompat.config import Config, normal_origin, normal_prefix
from pushcompat.errors import ConfigError
from pushcompat.limits import Limits, Retention


@pytest.mark.parametrize(
    ("given", "kept"),
    [("", ""), ("/", ""), ("push", "/push"), ("/push/", "/push"), ("/a/b.c~d_e-1/", "/a/b.c~d_e-1")],
)
def test_a_prefix_begins_with_a_slash_and_ends_without(given: str, kept: str) -> None:
    assert normal_prefix(given) == kept


@pytest.mark.parametrize("given", ["/a b", "/a//b", "/a?b", "/a#b", "/ä", "/..", "/a/../b", "/%41"])
def test_a_prefix_that_no_request_could_match_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="must be a path like /push"):
        normal_prefix(given)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("*", "*"),
        ("null", "null"),
        ("https://Example.COM", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_origin_is_kept_as_browsers_write_it(given: str, kept: str) -> None:
    assert normal_origin(given) == kept


@pytest.mark.parametrize(
    "given",
    ["", "a.com", "https://", "https://a/b", "https://a?b", "https://u@a", "https://*.a", "https://a:x", "https://a b"],
)
def test_invalid_origins_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="an origin is scheme://host"):
        normal_origin(given)


def test_an_origin_with_other_letters_is_told_how_browsers_send_it() -> None:
    with pytest.raises(ConfigError, match=r"browsers send this host as xn--bcher-kva\.example; write it so"):
        normal_origin("https://bücher.example")


def test_the_same_origin_twice_is_kept_once() -> None:
    config = Config(publish_key="k", cors_origins=("https://a", "https://A:443"))
    assert config.cors_origins == ("https://a",)


def large(size: int) -> Rules:
    return Rules((Rule(Pattern("a"), message_bytes=size, line=7),))


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"publish_key": ""}, "publish key in --publish-key is empty"),
        ({"publish_key": "a b"}, "has spaces"),
        ({"port": 65536}, "a port is a number from 0"),
        ({"log_format": "xml"}, "--log-format 'xml': must be one of text, json"),
        ({"log_level": "loud"}, "must be one of debug, info, warning, error"),
        ({"limits": Limits(request_cap_s=6)}, "--request-cap 6: must be more than 6 s"),
        ({"limits": Limits(heartbeat_s=86401)}, "--heartbeat 86401: must be at most 86400 s"),
        ({"limits": Limits(message_bytes=2 << 20)}, "--batch-limit must be at least --message-limit"),
        ({"limits": Limits(retention=Retention(bytes=10))}, "--history-bytes must be at least --message-limit"),
        (
            {"rules": large(1 << 20 | 1)},
            "message-limit in the [[channel]] of line 7 must be at most --batch-limit, 1048576",
        ),
        (
            {"rules": large(2), "limits": Limits(message_bytes=1, retention=Retention(bytes=1))},
            "at most --history-bytes, 1",
        ),
        ({"unix_socket": Path("/tmp/" + "x" * 100)}, "choose a shorter path"),
        ({"unix_socket": Path("/nowhere/x.sock")}, "directory /nowhere does not exist"),
    ],
)
def test_invalid_configurations_are_refused_in_one_line_that_says_what_to_do(
    wrong: dict[str, Any], advice: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config(**{"publish_key": "k", **wrong})
    assert advice in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_key_is_not_shown_where_the_configuration_is() -> None:
    assert "s3cret" not in repr(Config(publish_key="s3cret"))
