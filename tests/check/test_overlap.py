from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.access.patterns import Pattern
from pushcompat.check.overlap import shared_name

PATTERNS = st.from_regex(r"(?!.*\*\*)[ab*]{1,6}", fullmatch=True).map(Pattern)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("a.*", "*.b", "a.x.b"),
        ("user:{sub}", "*:ann", "user:x:ann"),
        ("a.*", "a.*", "a.x"),
        ("a", "*", "a"),
        ("a", "b", ""),
        ("a.*", "b.*", ""),
        ("a*", "a", ""),
    ],
)
def test_a_name_that_both_match_is_found_if_there_is_one(one: str, other: str, name: str) -> None:
    found = shared_name(Pattern(one), Pattern(other))
    assert bool(found) == bool(name)
    assert len(found) <= len(name)
    assert not found or (Pattern(one).matches(found) and Pattern(other).matches(found))


@given(PATTERNS, PATTERNS, st.text("abc", min_size=1, max_size=8))
def test_no_name_that_both_match_is_missed(one: Pattern, other: Pattern, name: str) -> None:
    found = shared_name(one, other)
    if found:
        assert one.matches(found)
        assert other.matches(found)
    elif one.matches(name):
        assert not other.matches(name)
