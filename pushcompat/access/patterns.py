"""Patterns of channel names: ``orders.*``, ``user:{sub}:*``.

``*`` is one or more characters of a name, ``{sub}`` the subscriber's own name from its token; all else is literal.
Matching takes time linear in the name for each ``*``, whatever the pattern: no backtracking, so no name is expensive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..wire.names import NAME, shown

SUB = "{sub}"
_STAR = "*"
_LONGEST = 128  # of a name
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_ALPHABET = re.compile(r"[A-Za-z0-9._:~@*-]*")


class Pattern:
    """Raises ValueError, with a sentence that says what to write instead."""

    __slots__ = ("_parts", "_touching", "text", "uses_sub")

    def __init__(self, text: str) -> None:
        _check(text)
        self.text = text
        self.uses_sub = SUB in text
        self._parts = text.replace(SUB, _STAR).split(_STAR)
        before, _, after = text.partition(SUB)
        self._touching = frozenset(before[-1:] + after[:1]) if self.uses_sub else frozenset()

    def matches(self, name: str) -> bool:
        """Whether it matches the name, ``{sub}`` being any name."""
        return _matches(self._parts, name)

    def matches_for(self, name: str, sub: str) -> bool:
        """Whether it matches the name for the subscriber of that name, which is taken literally.

        A subscriber whose name contains a character next to ``{sub}`` is never matched: with ``user:{sub}:*``,
        subscriber ``a:b`` would otherwise read what belongs to ``a``.
        """
        if not self.uses_sub:
            return _matches(self._parts, name)
        if not NAME.fullmatch(sub) or not self._touching.isdisjoint(sub):
            return False
        return _matches(self.text.replace(SUB, sub).split(_STAR), name)

    def covers(self, other: Pattern) -> bool:
        """Whether it matches every name that the other one matches.

        A ``*`` of the other one can be any character, so only a ``*`` of this one can match it: compared as if it were
        one more character of names.
        """
        return _matches(self._parts, other.text.replace(SUB, _STAR))

    @property
    def ambiguous(self) -> bool:
        """``{sub}`` is between two ``*``: ``a:*:{sub}:*`` matches ``a:1:ann:bob:2`` for ``ann`` and for ``bob``."""
        before, _, after = self.text.partition(SUB)
        return self.uses_sub and _STAR in before and _STAR in after

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _matches(parts: Sequence[str], name: str) -> bool:
    """Whether the name is these literals, with one character or more between each two of them."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return name == first
    if not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first) + 1, len(name) - len(last)
    for part in parts[1:-1]:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part) + 1
    return at <= end


def _check(text: str) -> None:
    """Raises ValueError."""
    if not text:
        raise ValueError("an empty pattern matches no channel; use * for all channels")
    others = [found for found in _PLACEHOLDER.findall(text) if found != SUB]
    if others:
        raise ValueError(f"pattern {shown(text)} has {shown(others[0])}; the only placeholder is {SUB}")
    if text.count(SUB) > 1:
        raise ValueError(f"pattern {shown(text)} has more than one {SUB}; a pattern may have one")
    plain = text.replace(SUB, "")
    if not _ALPHABET.fullmatch(plain):
        raise ValueError(
            f"pattern {shown(text)}: use the characters of channel names (A-Z a-z 0-9 . _ : ~ @ -), * and {SUB}"
        )
    if "**" in text:
        raise ValueError(f"pattern {shown(text)} has **; one * matches any number of characters")
    if _STAR + SUB in text or SUB + _STAR in text:
        raise ValueError(
            f"pattern {shown(text)}: * next to {SUB} would let a subscriber read channels of others whose names begin"
            f" or end like its own; put a separator between them, for example {SUB}:*"
        )
    if len(plain) + text.count(SUB) > _LONGEST:
        raise ValueError(f"pattern {shown(text)} matches no channel: names have at most {_LONGEST} characters")
