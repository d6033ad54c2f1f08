"""Responses, byte by byte."""

from __future__ import annotations

import json

import pytest

from pushcompat.errors import BadRequest, MethodNotAllowed, RequestError, Unauthorized
from pushcompat.wire import http


def test_an_answer_says_all_that_a_client_and_a_proxy_need() -> None:
    http.set_date(784111777)  # the date of RFC 9110 §5.6.7
    answer = http.answer(200, b"{}", "application/json", keep_alive=True, extra=b"Vary: Origin\r\n")
    first, _, body = answer.partition(b"\r\n\r\n")
    lines = first.split(b"\r\n")
    assert lines == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/json",
        b"Content-Length: 2",
        b"Connection: keep-alive",
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
        b"Cache-Control: no-store, no-transform",
        b"X-Accel-Buffering: no",
        b"X-Content-Type-Options: nosniff",
        b"Vary: Origin",
    ]
    assert body == b"{}"


@pytest.mark.parametrize(
    ("refused", "line"),
    [
        (BadRequest("say “more”"), b""),
        (Unauthorized("a key"), b'WWW-Authenticate: Bearer realm="pushcompat"'),
        (MethodNotAllowed("use GET", "GET, HEAD"), b"Allow: GET, HEAD"),
    ],
)
def test_a_refusal_is_a_problem_document(refused: RequestError, line: bytes) -> None:
    first, _, body = http.problem(refused, keep_alive=False).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % refused.status)
    assert b"Content-Type: application/problem+json\r\n" in first
    assert b"Connection: close\r\n" in first
    assert b"Content-Length: %d\r\n" % len(body) in first
    assert line in first
    assert json.loads(body) == {
        "type": "about:blank",
        "title": refused.status.phrase,
        "status": refused.status,
        "detail": refused.detail,
    }


@pytest.mark.parametrize("subscribers", [{"a": 3}, {"a": 3, "b": 0}])
def test_the_answer_to_a_publish_names_its_last_message_and_counts_subscribers(subscribers: dict[str, int]) -> None:
    answer = http.published("aaaaaaaa", 7, subscribers, keep_alive=True, extra=b"Vary: Origin\r\n")
    first, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in first
    assert first.endswith(b"Vary: Origin")
    assert json.loads(body) == {
        "id": "aaaaaaaa-000000000000007",
        "channels": {name: {"subscribers": count} for name, count in subscribers.items()},
    }


def test_the_answer_to_a_publish_says_how_many_replicas_have_it_if_they_were_waited_for() -> None:
    answer = http.published("x6b758hk", 5, {"a": 2}, keep_alive=True, extra=b"", replicas=1)
    body = b'{"id":"x6b758hk-000000000000005","channels":{"a":{"subscribers":2}},"replicas":1}\n'
    assert answer.endswith(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
