from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.wire.documents import document, unwrapped
from pushcompat.wire.templates import Missing, Template


def test_numbers_are_kept_as_they_were_written() -> None:
    found = document(b'{"a": 1.10, "b": 12345678901234567890123, "c": 1E400}', "application/json", {})
    assert Template("{a} {b} {c}").render(found) == "1.10 12345678901234567890123 1E400"


def test_a_number_of_ten_thousand_digits_is_a_text() -> None:
    assert document(b"[" + b"1" * 10_000 + b"]", "application/json", {}) == ["1" * 10_000]


FORM = "application/x-www-form-urlencoded"


def test_the_fields_of_a_form_and_of_a_query_are_fields_too() -> None:
    assert document(b"a=1&b=%C3%A9&a=2&c", FORM, {}) == {"a": "2", "b": "é", "c": ""}
    assert document(b"", FORM, {"a": "1"}) == {"a": "1"}


@pytest.mark.parametrize("body", [b"a=%FF", b"\xff=1", b"&".join([b"a=1"] * 1001)])
def test_a_form_that_cannot_be_read_has_no_fields(body: bytes) -> None:
    with pytest.raises(Missing, match="the body is no form"):
        document(body, FORM, {})
    assert unwrapped(b"x" + body, FORM) == (b"x" + body, FORM)


@pytest.mark.parametrize("body", [b"nonsense", b"[" * 200 + b"]" * 200, b"\xff", b"NaN", b'{"a":1}x'])
def test_a_body_that_is_no_json_has_no_fields(body: bytes) -> None:
    with pytest.raises(Missing):
        document(body, "application/json", {})


def test_a_form_that_contains_one_payload_is_that_json() -> None:
    assert unwrapped(b"payload=%7B%22a%22%3A1%7D", FORM) == (b'{"a":1}', "application/json")
    for body in (b"payload=1&b=2", b"a=1", b""):
        assert unwrapped(body, FORM) == (body, FORM)
    assert unwrapped(b"payload=1", "text/plain") == (b"payload=1", "text/plain")


_BODIES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([*list('{}[],:"\\"'), "payload=", "%7B", "a=1&", "1e999", "\\ud800", "null", "é"])).map(
        lambda parts: "".join(parts).encode()
    ),
)


@given(_BODIES, st.sampled_from([FORM, "application/json", "text/plain", ""]))
def test_every_body_has_fields_or_is_refused(body: bytes, media_type: str) -> None:
    try:
        found = document(*unwrapped(body, media_type), {})
        Template("{a}").render(found).encode()
    except Missing:
        pass
