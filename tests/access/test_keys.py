from __future__ import annotations

import pytest

from pushcompat.access.keys import PublishKeys
from pushcompat.errors import Unauthorized

from .test_origins import request

KEYS = [b"first-key", b"second-key"]


@pytest.mark.parametrize("line", ["Bearer first-key", "bearer second-key", "BEARER   first-key  "])
def test_any_of_the_keys_lets_a_publisher_in(line: str) -> None:
    assert PublishKeys(KEYS).check(request(f"Authorization: {line}")) == "publisher"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "publishing needs the publish key"),
        (["Authorization: "], "publishing needs the publish key"),
        (["Authorization: Bearer"], "publishing needs the publish key"),
        (["Authorization: Basic Zmlyc3Qta2V5"], "publishing needs the publish key"),
        (["Authorization: first-key"], "publishing needs the publish key"),
        (["Authorization: Bearer wrong"], "invalid publish key"),
        (["Authorization: Bearer first-key2"], "invalid publish key"),
        (["Authorization: Bearer f\xfcrst-key"], "invalid publish key"),
        (["Authorization: Bearer first-key", "Authorization: Bearer first-key"], "invalid publish key"),
    ],
)
def test_a_publisher_without_a_valid_key_gets_the_reason(lines: list[str], said: str) -> None:
    with pytest.raises(Unauthorized, match=said):
        PublishKeys(KEYS).check(request(*lines))


def test_without_keys_nobody_publishes() -> None:
    with pytest.raises(Unauthorized):
        PublishKeys([]).check(request("Authorization: Bearer x"))


def test_a_revoked_key_lets_nobody_in() -> None:
    keys = PublishKeys(KEYS)
    keys.revoke(b"first-key")
    assert keys.check(request("Authorization: Bearer second-key")) == "publisher"
    with pytest.raises(Unauthorized):
        keys.check(request("Authorization: Bearer first-key"))
