"""A channel that two patterns match, to show that the order of their rules decides."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from ..access.patterns import SUB, Pattern

_ANY, _MORE = "*", "+"  # one character, and any number of further ones
_EXAMPLE = "x"


def shared_name(one: Pattern, other: Pattern) -> str:
    """The shortest such name; empty if there is none. A search through the pairs of positions in both patterns."""
    a, b = _steps(one), _steps(other)
    names = {(0, 0): ""}
    queue = deque(names)
    while queue:
        here = queue.popleft()
        if here == (len(a), len(b)):
            return names[here]
        for there, character in _moves(a, b, *here):
            if there not in names:
                names[there] = names[here] + character
                queue.append(there)
    return ""


def _steps(pattern: Pattern) -> str:
    return pattern.text.replace(SUB, _ANY).replace(_ANY, _ANY + _MORE)


def _moves(a: Sequence[str], b: Sequence[str], i: int, j: int) -> Iterator[tuple[tuple[int, int], str]]:
    if i < len(a) and a[i] == _MORE:
        yield (i + 1, j), ""
    if j < len(b) and b[j] == _MORE:
        yield (i, j + 1), ""
    if i < len(a) and j < len(b):
        literals = {step for step in (a[i], b[j]) if step not in (_ANY, _MORE)}
        if len(literals) < 2:
            yield (i + (a[i] != _MORE), j + (b[j] != _MORE)), "".join(literals) or _EXAMPLE
