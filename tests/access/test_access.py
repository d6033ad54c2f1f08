"""Admission: what is remembered of a verdict, and what ends it."""

from __future__ import annotations

import pytest

from pushcompat.access.access import Access
from pushcompat.access.named_key import NamedKey
from pushcompat.access.patterns import Pattern
from pushcompat.access.policy import Policy
from pushcompat.errors import Forbidden, Unauthorized
from pushcompat.wire.request import Request, parse_head

from .signing import SECRET, sign

KEY = b"the-key"


def head(method: str, *lines: str) -> Request:
    return parse_head("\r\n".join([f"{method} /channels/chat HTTP/1.1", "Host: h", *lines, "", ""]).encode())


def publish(*lines: str) -> Request:
    return head("POST", *(lines or ("Authorization: Bearer the-key",)))


def test_a_publisher_is_admitted_with_a_key_and_a_subscriber_without() -> None:
    access = Access(Policy([KEY]))
    publisher, subscriber = access.admit(publish()), access.admit(head("GET"))
    assert publisher is not None
    assert subscriber is not None
    assert (publisher.publisher, subscriber.publisher) == ("root", "")
    with pytest.raises(Unauthorized):
        access.admit(publish("Content-Length: 1"))


def test_a_verdict_on_the_same_header_fields_is_remembered() -> None:
    access = Access(Policy([KEY]))
    assert access.admit(publish()) is access.admit(publish())
    assert access.admit(head("GET", "X: 1")) is access.admit(head("GET", "X: 1"))
    assert access.admit(head("GET", "X: 1")) is not access.admit(head("GET", "X: 2"))


def test_verdicts_of_several_publishers_are_remembered_side_by_side() -> None:
    access = Access(Policy([KEY]))
    all_lines = [("Authorization: Bearer the-key", f"X: {number}") for number in range(100)]
    grants = [access.admit(publish(*lines)) for lines in all_lines]
    assert all(access.admit(publish(*lines)) is grant for lines, grant in zip(all_lines, grants, strict=True))


def test_a_verdict_that_depends_on_what_a_proxy_reports_is_not_remembered_for_other_connections() -> None:
    access = Access(Policy([KEY]))
    lines = ("Origin: https://public.example", "X-Forwarded-Host: public.example")
    for method, more in (("GET", ()), ("POST", ("Authorization: Bearer the-key",))):
        proxied, direct = head(method, *lines, *more), head(method, *lines, *more)
        proxied.proxied = True
        assert access.admit(proxied) is not None
        with pytest.raises(Forbidden):
            access.admit(direct)


def test_a_subscribers_verdict_is_not_a_publishers() -> None:
    access = Access(Policy([KEY]))
    access.admit(head("GET", "X: same"))
    with pytest.raises(Unauthorized):
        access.admit(head("POST", "X: same"))


def test_a_verdict_dies_with_its_key_wherever_it_is_remembered() -> None:
    access = Access(Policy([KEY, b"another"]))
    grant = access.admit(publish())
    assert grant is not None
    access.reconfigure(Policy([b"another"]))
    assert grant.until < 0
    with pytest.raises(Unauthorized):
        access.admit(publish())
    assert access.admit(publish("Authorization: Bearer another")) is not None


def test_a_verdict_dies_when_its_time_is_over() -> None:
    now = 10.0
    access = Access(Policy([KEY]), clock=lambda: now)
    grant = access.admit(head("GET"))
    assert grant is not None
    grant.until = 20
    assert access.admit(head("GET")) is grant
    now = 20.0
    assert access.admit(head("GET")) is not grant


def test_the_number_of_cached_grants_is_bounded() -> None:
    access = Access(Policy([KEY]))
    for number in range(1000):
        access.admit(publish("Authorization: Bearer the-key", f"X: {number}"))
    assert len(access._publishers) <= 256


def test_a_refusal_carries_the_lines_that_let_the_page_read_it() -> None:
    access = Access(Policy([KEY], ["https://page.example"]))
    with pytest.raises(Unauthorized) as refused:
        access.admit(publish("Origin: https://page.example"))
    assert b"Access-Control-Allow-Origin: https://page.example" in refused.value.cors
    with pytest.raises(Forbidden) as other:
        access.admit(head("GET", "Origin: https://other.example"))
    assert other.value.cors == b"Vary: Origin\r\n"


def test_a_signed_request_is_not_admitted_before_its_body() -> None:
    key = NamedKey("shop", [Pattern("*")], b"", secrets=[SECRET])
    access = Access(Policy([KEY], ["https://page.example"], keys=[key]))
    lines = [f"{name}: {value}" for name, value in sign(b"hello").items()]
    signed = publish("Origin: https://page.example", "Content-Length: 5", *lines)
    assert access.admit(signed) is None
    signed.feed(b"hello")
    grant = access.admit_body(signed)
    assert grant.publisher == "shop"
    assert b"Access-Control-Allow-Origin: https://page.example" in grant.cors
    wrong = publish("Content-Length: 5", *lines)
    wrong.feed(b"hallo")
    with pytest.raises(Unauthorized):
        access.admit_body(wrong)
    assert access.admit(publish()) is not None


def test_a_publisher_whose_grant_has_ended_is_asked_again_when_its_body_is_complete() -> None:
    access = Access(Policy([KEY]))
    request = publish()
    grant = access.admit(request)
    assert access.admit_body(request) is grant
    access.reconfigure(Policy())
    with pytest.raises(Unauthorized):
        access.admit_body(request)
