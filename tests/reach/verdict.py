"""Checks that a page received each number exactly once and in order, or ``reset`` if history was lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def complaints(seen: Iterable[int | None], expected: Collection[int], *, history_lost: bool = False) -> list[str]:
    """``seen``: the received numbers in the order of their callbacks, None for a reset; ``expected``: numbers that must
    be among them.
    """
    found: list[str] = []
    told: set[int] = set()
    last, reset, resets = 0, False, 0
    for number in seen:
        if number is None:
            reset, resets = True, resets + 1
            continue
        if number in told:
            found.append(f"{number} came again")
        elif number < last:
            found.append(f"{number} came after {last}")
        elif not reset:
            found += [f"{missing} is missing" for missing in range(last + 1, number) if missing in expected]
        told.add(number)
        last, reset = max(last, number), False
    found += [f"{missing} never came" for missing in sorted(expected) if missing > last]
    if resets and not history_lost:
        found.append("reset, although nothing was lost")
    if history_lost and not resets:
        found.append("no reset, although history was lost")
    return found
