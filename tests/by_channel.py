"""Counts and ages by channel, as rules give them."""

from __future__ import annotations

from collections.abc import Mapping


class ByChannel:
    exist = True

    def __init__(self, own: Mapping[str, tuple[int | None, float | None]]) -> None:
        self._own = own

    def of(self, channel: str) -> tuple[int | None, float | None]:
        return self._own.get(channel, (None, None))
