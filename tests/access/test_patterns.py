from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.access.patterns import Pattern

NAMES = st.text("ab:.", min_size=1, max_size=9)
PATTERNS = st.from_regex(re.compile(r"(?!.*\*\*)[ab:.*]{1,7}"), fullmatch=True)


def by_regex(text: str, name: str, sub: str = ".+") -> bool:
    """The definition: a * is one or more characters."""
    parts = [re.escape(part).replace(r"\{sub\}", sub) for part in text.split("*")]
    return re.fullmatch(".+".join(parts), name) is not None


@pytest.mark.parametrize(
    ("text", "matched", "others"),
    [
        ("orders", ["orders"], ["order", "orders1", "Orders", "orders."]),
        ("orders.*", ["orders.7", "orders.7.lines", "orders.."], ["orders", "orders.", "xorders.7", "orders-7"]),
        ("*", ["a", "orders.7", "user:ann"], []),
        ("*.log", ["a.log", "a.b.log", "..log"], [".log", "a.logs"]),
        ("a*b*c", ["axbxc", "abbbc", "axxbxxc"], ["abc", "axbc", "abxc"]),
        ("a*a", ["aba", "aaa"], ["a", "aa"]),
        ("user:{sub}", ["user:ann", "user:a:b"], ["user:", "user"]),
        ("user:{sub}:*", ["user:ann:inbox"], ["user:ann", "user:ann:"]),
    ],
)
def test_a_star_and_a_sub_are_one_or_more_characters_and_all_else_is_literal(
    text: str, matched: list[str], others: list[str]
) -> None:
    pattern = Pattern(text)
    assert [name for name in [*matched, *others] if pattern.matches(name)] == matched


@given(PATTERNS, NAMES)
def test_a_pattern_matches_what_its_regular_expression_matches(text: str, name: str) -> None:
    assert Pattern(text).matches(name) == by_regex(text, name)


def test_no_name_is_expensive_to_match() -> None:
    """A backtracking matcher would need longer than the age of the universe."""
    assert not Pattern("*a" * 60 + "*b").matches("a" * 128)


def test_a_sub_is_taken_literally() -> None:
    pattern = Pattern("user:{sub}:*")
    assert pattern.matches_for("user:ann:inbox", "ann")
    assert not pattern.matches_for("user:ann:inbox", "bob")
    assert not pattern.matches_for("user:ann:inbox", "an")
    assert not pattern.matches_for("user:anx:inbox", "an.")


def test_without_sub_in_the_pattern_the_subscribers_name_does_not_matter() -> None:
    pattern = Pattern("orders.*")
    assert pattern.matches_for("orders.7", "")
    assert not pattern.matches_for("users.7", "ann")


@pytest.mark.parametrize(
    ("text", "name", "sub"),
    [
        ("user:{sub}:*", "user:ann:bob:x", "ann:bob"),  # belongs to ann
        ("user:{sub}:*", "user:ann:x", ":ann"),
        ("user:{sub}", "user:ann:bob", "ann:bob"),
        ("*.{sub}", "a.b.c", "b.c"),
        ("{sub}-*", "ann-bob-x", "ann-bob"),
        ("u{sub}", "uu", "u"),
    ],
)
def test_a_sub_with_a_character_next_to_it_in_the_pattern_reaches_nobody_elses_channels(
    text: str, name: str, sub: str
) -> None:
    assert by_regex(text, name, re.escape(sub)) or sub == ":ann"
    assert not Pattern(text).matches_for(name, sub)


@pytest.mark.parametrize("sub", ["", "*", "{sub}", "a b", "ann,bob", "é", "a/b", "a\n", "x" * 129])
def test_a_sub_that_could_not_be_part_of_a_name_matches_nothing(sub: str) -> None:
    for text in ("{sub}", "user:{sub}", "user:{sub}:*"):
        for name in (sub, f"user:{sub}", f"user:{sub}:1", "user:x:1"):
            assert not Pattern(text).matches_for(name, sub)


@given(st.from_regex(r"[ab:.]{1,3}(\{sub\})([:.][ab*])?", fullmatch=True), NAMES, NAMES, NAMES)
def test_no_name_belongs_to_two_subscribers(text: str, name: str, ann: str, bob: str) -> None:
    if ann != bob and Pattern(text).matches_for(name, ann):
        assert not Pattern(text).matches_for(name, bob)


def test_a_sub_between_two_stars_is_ambiguous() -> None:
    pattern = Pattern("a:*:{sub}:*")
    assert pattern.ambiguous
    assert pattern.matches_for("a:1:ann:bob:2", "ann")
    assert pattern.matches_for("a:1:ann:bob:2", "bob")
    assert not any(Pattern(text).ambiguous for text in ("a:*:b:*", "*:{sub}", "{sub}:*", "a:{sub}:b", "*"))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "an empty pattern matches no channel; use * for all channels"),
        ("orders/*", "use the characters of channel names"),
        ("a,b", "use the characters of channel names"),
        ("a b", "use the characters of channel names"),
        ("ördérs", "use the characters of channel names"),
        ("orders\n", "use the characters of channel names"),
        ("a{", "use the characters of channel names"),
        ("user:{sub", "use the characters of channel names"),
        ("user:{user}", "has '{user}'; the only placeholder is {sub}"),
        ("user:{Sub}", "the only placeholder is {sub}"),
        ("{sub}:{sub}", "more than one {sub}"),
        ("a.**", "has **; one * matches any number of characters"),
        ("user:{sub}*", "put a separator between them"),
        ("*{sub}", "put a separator between them"),
        ("x" * 129, "names have at most 128 characters"),
    ],
)
def test_an_invalid_pattern_is_refused_with_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)) as refusal:
        Pattern(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["x" * 128, "x" * 127 + "*", "x" * 127 + "{sub}"])
def test_a_pattern_that_matches_the_longest_names_is_valid(text: str) -> None:
    assert Pattern(text).matches("x" * 128)


def test_every_character_of_a_name_may_be_in_a_pattern() -> None:
    alphabet = string.ascii_letters + string.digits + "._:~@-"
    assert Pattern(alphabet).matches(alphabet)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("*", "a"), ("*", "*"), ("*", "{sub}"), ("a.*", "a.b.*"), ("user:{sub}", "user:*:x"), ("a*", "ab*"), ("a", "a")],
)
def test_a_pattern_covers_another_that_matches_nothing_more(earlier: str, later: str) -> None:
    assert Pattern(earlier).covers(Pattern(later))


@pytest.mark.parametrize(
    ("earlier", "later"), [("a", "*"), ("a.*", "a*"), ("ab*", "a*"), ("a.*", "a."), ("a.b*", "a.*"), ("*a", "a*")]
)
def test_a_pattern_does_not_cover_another_that_matches_more(earlier: str, later: str) -> None:
    assert not Pattern(earlier).covers(Pattern(later))


@given(PATTERNS, PATTERNS, NAMES)
def test_what_a_covered_pattern_matches_the_covering_one_matches_too(earlier: str, later: str, name: str) -> None:
    if Pattern(earlier).covers(Pattern(later)) and Pattern(later).matches(name):
        assert Pattern(earlier).matches(name)


@given(PATTERNS, PATTERNS)
def test_a_pattern_that_is_not_covered_matches_a_name_that_the_other_does_not(earlier: str, later: str) -> None:
    """That name has a character that is in neither pattern wherever the later one has a star."""
    if not Pattern(earlier).covers(Pattern(later)):
        name = later.replace("*", "z")
        assert Pattern(later).matches(name)
        assert not Pattern(earlier).matches(name)


def test_patterns_of_one_text_are_equal() -> None:
    assert Pattern("a.*") == Pattern("a.*")
    assert len({Pattern("a.*"), Pattern("a.*"), Pattern("a")}) == 2
    assert repr(Pattern("a.*")) == "Pattern('a.*')"
