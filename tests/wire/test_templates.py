from __future__ import annotations

import pytest

from pushcompat.wire.templates import Missing, Template

ORDER = {
    "order": {"id": "7", "items": [{"sku": "a"}, {"sku": "b"}], "paid": True, "note": None},
    "é": "x",
    "a-b_1": "y",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("UPDATED", "UPDATED"),
        ("order {order.id}", "order 7"),
        ("{order.items.1.sku}{order.items.0.sku}", "ba"),
        ("paid: {order.paid}", "paid: true"),
        ("{{{order.id}}} {{x}} }}{{", "{7} {x} }{"),
        ("line\n{a-b_1}\n", "line\ny\n"),
    ],
)
def test_fields_are_replaced_by_what_the_request_has(template: str, text: str) -> None:
    assert Template(template).render(ORDER) == text


@pytest.mark.parametrize(
    "path",
    [
        "nothing", "order", "order.items", "order.items.2.sku", "order.items.x", "order.items.-1", "order.note",
        "order.id.0", "order.items.99999999999999999999", "order.__class__", "order.items.count",
    ],
)  # fmt: skip
def test_a_field_that_the_request_does_not_have_is_named(path: str) -> None:
    """Also what a Python object has, but the document has not."""
    with pytest.raises(Missing, match=f"no text, number or boolean at {{{path}}}"):
        Template(f"{{{path}}}").render(ORDER)


@pytest.mark.parametrize(
    "template", ["{", "}", "{}", "{a b}", "{a", "a}", "{a..b}", "{.a}", "{a!r}", "{a:>9}", "{a[0]}"]
)
def test_braces_without_a_field_are_refused_with_advice(template: str) -> None:
    with pytest.raises(ValueError, match=r"does not belong to a field like \{order.id\}; write \{\{ or \}\}"):
        Template(template)


def test_what_is_inserted_is_not_a_template() -> None:
    assert Template("{a}").render({"a": "{b}", "b": "c"}) == "{b}"
