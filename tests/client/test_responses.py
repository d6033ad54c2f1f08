from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from pushcompat.client.responses import is_retryable, problem_detail, retry_after_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("3600", 3600),
        ("3601", 3600),
        ("9" * 20, 3600),
        ("9" * 5000, 3600),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Mon, 99 Jan 2001 00:00:00 GMT", None),
        (", ,", None),
    ],
)
def test_a_retry_after_is_at_most_an_hour(text: str, seconds: float | None) -> None:
    assert retry_after_s(text) == seconds


def test_a_retry_after_may_be_a_date() -> None:
    assert 55 < (retry_after_s(formatdate(time.time() + 60, usegmt=True)) or 0) <= 60


def test_a_status_that_may_pass_is_retryable() -> None:
    assert [status for status in range(100, 700) if is_retryable(status)] == [408, 425, 426, 429, *range(500, 600)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"detail":"change this","title":"No"}', "change this"),
        (b'{"title":"No"}', "No"),
        (b"{}", "answered 404 Not Found"),
        (b"[]", "answered 404 Not Found"),
        (b"\xff", "answered 404 Not Found"),
        (b"[" * 200_000, "answered 404 Not Found"),
        (b"", "answered 404 Not Found"),
    ],
    ids=range(7),
)
def test_an_error_response_is_its_detail_or_its_status(body: bytes, detail: str) -> None:
    assert problem_detail(404, body) == detail
