from __future__ import annotations

import json
from hashlib import sha256

import pytest

from pushcompat.access.named_key import (
    checked_digest,
    checked_name,
    checked_patterns,
    create,
    from_record,
    to_record,
)
from pushcompat.access.patterns import Pattern


def test_a_key_shows_eight_characters_and_keeps_a_hash_of_32_random_bytes() -> None:
    key, text = create("shop", [Pattern("orders.*")], now=1000.5)
    public, _, secret = text.removeprefix("pc_").partition("_")
    assert (key.name, key.prefix, key.created) == ("shop", f"pc_{public}", 1000)
    assert (len(public), len(secret)) == (8, 43)
    assert key.digest == sha256(text.encode()).digest()
    assert create("shop", [], 0.0)[1] != text


def test_the_record_of_a_key_is_read_back_and_has_neither_the_key_nor_its_secrets() -> None:
    key, text = create("shop", checked_patterns(["orders.*", "stock"]), now=1000.0)
    record = to_record(key)
    assert text.encode() not in record
    assert text[12:].encode() not in record
    again = from_record("shop", record)
    for field in ("name", "digest", "prefix", "channels", "created"):
        assert getattr(again, field) == getattr(key, field)


RECORD = {"prefix": "pc_aaaaaaaa", "sha256": "00" * 32, "channels": ["a"], "created": 1}


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"revoked":true}',
        b"[" * 100_000,
        *(json.dumps({**RECORD, **wrong}).encode() for wrong in (
            {"prefix": 1}, {"prefix": ""}, {"prefix": "pc_aaaaaaaa_"}, {"sha256": "00"}, {"sha256": None},
            {"channels": []}, {"channels": "a"}, {"channels": ["{sub}"]}, {"channels": [[1]]}, {"created": "now"},
            {"created": True},
        )),
    ],
)  # fmt: skip
def test_a_record_of_anything_else_is_refused(record: bytes) -> None:
    assert from_record("shop", json.dumps(RECORD).encode()).prefix == "pc_aaaaaaaa"
    with pytest.raises(ValueError, match=r"."):
        from_record("shop", record)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 65, "ü", "root", "keys", "open", "a\n"])
def test_a_name_that_cannot_be_shown_or_means_something_else_is_refused(name: str) -> None:
    assert checked_name("shop-1.eu_x") == "shop-1.eu_x"
    with pytest.raises(ValueError, match=r"use 1-64 characters|choose another name"):
        checked_name(name)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "at least one pattern"),
        (["a"] * 65, "at most 64 patterns"),
        (["user:{sub}:*"], "use \\* instead"),
        (["a b"], "use the characters of channel names"),
    ],
)
def test_patterns_that_fit_no_key_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked_patterns(texts)


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "00" * 32 + "\n", "sha256:" + "00" * 32])
def test_a_hash_that_is_not_a_sha256_is_refused(text: str) -> None:
    assert checked_digest("aA" * 32) == b"\xaa" * 32
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        checked_digest(text)
