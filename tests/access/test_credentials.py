from __future__ import annotations

import pytest

from pushcompat.access.credentials import bearer, cookie
from pushcompat.wire.request import Request, parse_head


def request(*lines: str) -> Request:
    return parse_head("\r\n".join(["GET /channels/a HTTP/1.1", "Host: h", *lines, "", ""]).encode())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Authorization: Bearer abc", b"abc"),
        ("authorization: bearer  abc ", b"abc"),
        ("Authorization: Basic abc", b""),
        ("Authorization: Bearer", b""),
        ("Authorization: Bearerabc", b""),
        ("X: Bearer abc", b""),
    ],
)
def test_the_credentials_of_bearer_are_found_and_no_others(line: str, found: bytes) -> None:
    assert bearer(request(line)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Cookie: token=abc", b"abc"),
        ("Cookie: a=b; token=abc; c=d", b"abc"),
        ("Cookie: a=b;token=abc", b"abc"),
        ('Cookie: token="abc"', b"abc"),
        ("Cookie: token=a=b", b"a=b"),
        ("Cookie: token=first; token=second", b"first"),
        ("Cookie: xtoken=abc; tokenx=abc", b""),
        ("Cookie: token", b""),
        ("Cookie: a=token=abc", b""),
        ("X: y", b""),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(line: str, found: bytes) -> None:
    assert cookie(request(line), b"token") == found
