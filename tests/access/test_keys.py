from __future__ import annotations

from hashlib import sha256

import pytest

from pushcompat.access.keys import PublishKeys, bearer
from pushcompat.access.named_key import NamedKey, checked_patterns, create
from pushcompat.errors import Unauthorized

from .test_origins import request

ROOTS = [b"first-key", b"second-key"]


def configured(name: str, text: str) -> NamedKey:
    return NamedKey(name, checked_patterns(["*"]), sha256(text.encode()).digest())


def given(*lines: str) -> bytes:
    return bearer(request(*lines).fields.headers.get(b"authorization", b""))


@pytest.mark.parametrize("line", ["Bearer first-key", "bearer second-key", "BEARER   first-key  "])
def test_each_of_the_root_keys_is_one(line: str) -> None:
    assert PublishKeys(ROOTS).find(given(f"Authorization: {line}")) is None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Authorization: "],
        ["Authorization: Bearer"],
        ["Authorization: Basic Zmlyc3Qta2V5"],
        ["Authorization: first-key"],
    ],
)
def test_a_request_without_bearer_credentials_has_no_key(lines: list[str]) -> None:
    assert given(*lines) == b""


@pytest.mark.parametrize(
    "lines",
    [
        ["Authorization: Bearer wrong"],
        ["Authorization: Bearer first-key2"],
        ["Authorization: Bearer f\xfcrst-key"],
        ["Authorization: Bearer pc_\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9_x"],
        ["Authorization: Bearer pc_"],
        ["Authorization: Bearer first-key", "Authorization: Bearer first-key"],
    ],
)
def test_a_wrong_key_is_refused_whatever_bytes_it_has(lines: list[str]) -> None:
    keys = PublishKeys(ROOTS, [configured("shop", "third-key")])
    keys.add(create("other", [], 0.0)[0])
    with pytest.raises(Unauthorized, match="invalid publish key"):
        keys.find(given(*lines))


def test_a_named_key_is_found_by_its_prefix_and_only_with_its_secret() -> None:
    keys = PublishKeys(ROOTS)
    key, text = create("shop", [], 0.0)
    other, other_text = create("other", [], 0.0)
    keys.add(key)
    keys.add(other)
    assert keys.find(text.encode()) is key
    assert keys.find(other_text.encode()) is other
    for wrong in (text[:12] + other_text[12:], text[:-1], text + "x", key.prefix, f"{key.prefix}_"):
        with pytest.raises(Unauthorized):
            keys.find(wrong.encode())


def test_a_key_of_the_configuration_is_found_by_its_hash_whatever_its_text() -> None:
    keys = PublishKeys(ROOTS, [configured("a", "text-a"), configured("b", "pc_text-b")])
    for text, name in (("text-a", "a"), ("pc_text-b", "b")):
        found = keys.find(text.encode())
        assert found is not None
        assert found.name == name


def test_a_key_that_only_signs_is_found_by_no_text() -> None:
    keys = PublishKeys([], [NamedKey("signer", [], b"", secrets=[b"s" * 24])])
    for text in (b"", b"signer", b"s" * 24):
        with pytest.raises(Unauthorized):
            keys.find(text)


def test_a_removed_key_is_invalid_and_so_is_one_that_was_replaced() -> None:
    keys = PublishKeys(ROOTS)
    old, old_text = create("shop", [], 0.0)
    new, new_text = create("shop", [], 0.0)
    keys.add(old)
    keys.add(new)
    assert keys.find(new_text.encode()) is new
    keys.remove("shop")
    keys.remove("shop")
    for text in (old_text, new_text):
        with pytest.raises(Unauthorized):
            keys.find(text.encode())
    assert keys.find(b"first-key") is None


def test_the_configurations_key_of_a_name_is_the_only_one_of_it() -> None:
    key, text = create("shop", [], 0.0)
    keys = PublishKeys(ROOTS, [configured("shop", "text")])
    keys.add(key)
    with pytest.raises(Unauthorized):
        keys.find(text.encode())
    assert [found.prefix for found in keys.named()] == [""]


def test_without_keys_nobody_has_one() -> None:
    with pytest.raises(Unauthorized):
        PublishKeys([]).find(b"x")
